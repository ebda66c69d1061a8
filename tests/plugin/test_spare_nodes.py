"""Slow nodes are replaced by others before a model loads: real agents, a stand-in NIXL, stubs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.house import STUBS
from tests.support.house import House

pytestmark = pytest.mark.slow

SHARE = ("--topology", "route4,1p3d,2p2d", "--pdserve-share-engines")


@pytest.fixture
def nodes(house: House) -> Callable[..., None]:
    """A function that writes a system whose stand-in NIXL is slow at the nodes named *slow*."""

    def write(*, slow: str = "", transfer: dict[str, Any] | None = None, **cluster: int) -> None:
        house.suites("sweep")
        spec = {"sizes_mib": [1], "in_flight": [1], "prompt_lens": [32], "block_size": 16}
        house.system(
            cluster=cluster,
            pd_env={
                "PYTHONPATH": str(STUBS / "transfer"),
                "PDSTUB_NIXL": str(house.path / "nixl"),
                **({"PDSTUB_NIXL_SLOW": slow} if slow else {}),
                "UCX_TLS": "tcp",
            },
            transfer={"preflight": True, "floor_gb_s": 0.001, **spec, **(transfer or {})},
        )

    return write


def test_the_pairs_of_all_topologies_are_measured_before_shared_engines_start(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(slow="local3")
    result = house.run(*SHARE)
    said = result.stdout.str()
    assert "route4: preflight: 2 of 5 pairs below the required rate: local3 <- local0" in said
    assert "slow before any model is loaded: 1 of 3 pairs; cannot run: 1p3d, 2p2d" in said
    assert "slow before any model is loaded: 2 of 4 pairs; cannot run: 1p3d, 2p2d" in said
    assert "hold more with spare_nodes in [cluster] of " in said
    result.assert_outcomes(passed=1, errors=2, skipped=3)
    assert [record["topology"] for record in house.records()] == ["route4"]
    pairs = {path.name for path in house.runs.glob("*/transfer/shared-UCX-*.json")}
    assert pairs == {
        f"shared-UCX-local{reader}-from-local{source}.json"
        for reader, source in ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1))
    }
    assert house.survivors(5.0) == []


def test_shared_engines_have_figures_of_nixl_alone_though_the_first_topology_has_no_pair(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(nodes=2)
    result = house.run("--topology", "route2,1p1d", "--pdserve-share-engines")
    result.assert_outcomes(passed=2, skipped=2)
    said = result.stdout.str()
    assert "route2: preflight: 32tok moves at " in said
    (record,) = (each for each in house.records() if each["topology"] == "1p1d")
    assert all(each["bare_gb_s"] > 0 for each in record["transfers"])
    assert [*record["transfers"]] != []


def test_a_slow_node_is_replaced_and_the_record_and_the_summary_name_it(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(slow="local1", nodes=2, spare_nodes=1)
    result = house.run("--topology", "1p1d")
    result.assert_outcomes(passed=1, skipped=1)
    (record,) = house.records()
    assert record["nodes"] == ["local0", "local2"]
    (why,) = record["cluster"]["excluded"].values()
    assert [*record["cluster"]["excluded"]] == ["local1"]
    assert why.startswith("slow in all of its 2 pairs that were measured by UCX (UCX_TLS=tcp, ")
    assert "local1 <- local0 6" in why
    assert "expected at least 0.001 GB/s" in why
    said = result.stdout.str()
    assert f"local1 is excluded from this session, and local2 takes its place: {why}" in said
    assert f"local1 was excluded from this session: {why}" in said
    (report,) = house.runs.glob("*/report.json")
    assert (
        f"local1 was excluded from this session: {why}" in json.loads(report.read_text())["notes"]
    )
    assert house.survivors(5.0) == []


def test_a_run_on_the_spare_node_is_compared_with_runs_on_the_others(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(nodes=2, spare_nodes=1)
    house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    house.monkeypatch.setenv("PDSTUB_NIXL_SLOW", "local0")
    result = house.run("--topology", "1p1d")
    result.assert_outcomes(passed=1, skipped=1)
    first, second = house.records()
    assert (first["nodes"], second["nodes"]) == (["local0", "local1"], ["local2", "local1"])
    assert first["fingerprint"] == second["fingerprint"]
    assert any(line.split()[:1] == ["1p1d"] and line.endswith("PASS") for line in result.outlines)


def test_a_topology_of_all_nodes_is_an_error_once_one_of_them_is_excluded(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(slow="local1", nodes=3)
    result = house.run("--topology", "1p1d,dp")
    result.assert_outcomes(passed=1, errors=1, skipped=2)
    assert (
        "topology 'dp' needs 3 nodes, but 2 are left: local1 excluded from " in result.stdout.str()
    )
    assert [record["nodes"] for record in house.records()] == [["local0", "local2"]]
