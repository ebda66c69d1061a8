"""Transfers of a deployment that is up, held against what its system promises: stub engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.house import STUBS
from tests.support.house import House

KEPT = "cache/pytest-pdserve/transfers/*.json"


@pytest.fixture
def promise(house: House) -> Callable[..., None]:
    """A function that writes a system of two nodes which promises a speed, with a stand-in NIXL."""

    def write(**transfer: Any) -> None:
        house.suites("sweep")
        spec = {"sizes_mib": [1], "in_flight": [1], "block_size": 16, "prompt_lens": [32, 64]}
        house.system(
            cluster={"nodes": 2},
            pd_env={
                "PYTHONPATH": str(STUBS / "transfer"),
                "PDSTUB_NIXL": str(house.path / "nixl"),
                "UCX_TLS": "cuda_copy,tcp",
            },
            transfer={**spec, **transfer},
        )

    return write


@pytest.mark.slow
def test_records_have_what_each_pair_showed_and_what_nixl_alone_did(
    house: House, promise: Callable[..., None]
) -> None:
    promise(floor_gb_s=0.000_01)
    result = house.run("--topology", "1p1d")
    result.assert_outcomes(passed=1, skipped=1)
    (record,) = house.records()
    short, long = record["transfers"]
    assert {**long, "bare_gb_s": None} == {
        "reader": "decode[0]",
        "source": "prefill[0]",
        "pair": {"reader": "local1", "source": "local0"},
        "backend": "UCX",
        "provider": "UCX_TLS=cuda_copy,tcp",
        "prompt_tokens": 64,
        "transfers": 3,
        "ms": pytest.approx(4.0),
        "transfer_bytes": 64 * 256.0,
        "descriptors": 16.0,
        "posting_ms": pytest.approx(1.0),
        "bare_gb_s": None,
        "bare_descriptors": 16,
    }
    assert (short["prompt_tokens"], short["transfer_bytes"]) == (32, 32 * 256.0)
    assert 0 < short["bare_gb_s"] < 32 * 256 / 1e6  # the stand-in takes 1 ms at least
    assert 0 < long["bare_gb_s"] < 64 * 256 / 1e6
    assert "transfer measured: decode[0] on local1 <- prefill[0] on local0" in result.stdout.str()
    assert len([*house.path.glob(KEPT)]) == 2


def test_a_pair_at_tcp_speed_is_an_error_before_the_first_cell(
    house: House, promise: Callable[..., None]
) -> None:
    promise(floor_gb_s=0.01)
    result = house.run("--topology", "1p1d")
    result.assert_outcomes(errors=1, skipped=1)
    said = result.stdout.str()
    file = house.path / "baselines" / "stub" / "system.toml"
    assert "slow in the running deployment: 1 of 1 pairs" in said
    assert "decode[0] on local1 <- prefill[0] on local0 by UCX (UCX_TLS=cuda_copy,tcp), " in said
    assert "64 tokens: 4.00 ms (0.0041 GB/s, 16 descriptors, posting 1.00 ms; NIXL" in said
    assert f"expected at least 0.005 GB/s (half of 0.01: [transfer] floor_gb_s of {file})" in said
    assert "UCX_TLS=cuda_copy,tcp leaves only TCP: name a faster transport in UCX_TLS" in said
    assert "repeat  pdserve transfer --system stub --backends UCX --pair local1,local0" in said
    assert house.records() == []
    assert house.survivors(5.0) == []


@pytest.mark.slow
def test_nixl_alone_is_measured_once_for_a_host_and_its_versions(
    house: House, promise: Callable[..., None]
) -> None:
    promise(floor_gb_s=0.000_01)
    told = "measuring NIXL without a model"
    first, second = (house.run("--topology", "1p1d") for _ in range(2))
    assert (told in first.stdout.str(), told in second.stdout.str()) == (True, False)
    bare = [each["bare_gb_s"] for record in house.records() for each in record["transfers"]]
    assert bare[:2] == bare[2:]


@pytest.mark.slow
def test_without_a_promise_nothing_is_measured_beside_the_cells(
    house: House, promise: Callable[..., None]
) -> None:
    promise()
    result = house.run("--topology", "1p1d")
    result.assert_outcomes(passed=1, skipped=1)
    assert [record["transfers"] for record in house.records()] == [[]]
    assert not (house.path / "nixl").exists()
    assert [*house.path.glob(KEPT)] == []
    assert [*house.runs.glob("*/transfer")] == []


@pytest.mark.slow
def test_a_promise_that_instances_do_not_show_is_unproven_in_the_records(
    house: House, promise: Callable[..., None]
) -> None:
    promise(floor_gb_s=0.000_01)
    house.faults(every={"log_stats": False})
    result = house.run("--topology", "1p1d", "--pdserve-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (record,) = house.records()
    assert record["transfers"] == []
    (finding,) = (each for each in record["findings"] if each["check"] == "transfer_speed")
    assert finding["severity"] == "unproven"
    assert finding["message"].startswith("decode[0] shows no vllm:nixl_")
    assert finding["message"] in result.stdout.str()
