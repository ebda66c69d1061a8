"""``--pdserve-base-url``: the same suites against an endpoint that somebody else runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.drawn import write_nights
from tests.support.house import ENDPOINT_PORT
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.house import wait_text

URL = f"http://127.0.0.1:{ENDPOINT_PORT}"


@pytest.fixture
def endpoint(house: House) -> Iterator[subprocess.Popen[bytes]]:
    """A server of nobody's session; its log is ``endpoint.log``."""
    house.suites("smoke", "sweep")
    house.monkeypatch.setenv("VLLM_API_KEY", "open-sesame")
    log = house.path / "endpoint.log"
    argv = [
        house.programs["vllm"],
        "serve",
        str(house.path / "model"),
        "--port",
        str(ENDPOINT_PORT),
    ]
    server = house.spawn(argv, log)
    house.monkeypatch.delenv("VLLM_API_KEY")
    wait_text(server, log, "starts")
    yield server
    server.terminate()
    server.wait(timeout=10)


def test_it_is_measured_and_what_cannot_be_seen_is_unproven(
    endpoint: subprocess.Popen[bytes], house: House
) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    result = house.run("--topology", "1p1d", "--pdserve-base-url", URL, "-rs")
    result.assert_outcomes(passed=2, skipped=3)
    result.stdout.fnmatch_lines(
        ["SKIPPED *the instances behind this endpoint cannot be asked for their counters"]
    )
    text = result.stdout.str()
    assert "unproven: the counters of 1p1d's instances cannot be read here, so neither" in text
    (record,) = house.records()
    assert record["endpoint"] == URL
    assert record["versions"]["vllm"] == "0.32.0+stub"
    # Keys with a dot are those of the system file; the others are hardware.
    hardware = {key: value for key, value in record["host"].items() if "." not in key}
    assert hardware == {"endpoint": URL}
    assert [process["name"] for process in record["processes"]] == [f"bench {WORKLOAD}"]
    assert endpoint.poll() is None


def test_a_suspicious_cell_runs_again_on_the_same_servers_and_joins_no_baseline(
    endpoint: subprocess.Popen[bytes], house: House
) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    house.system(judgement_floors={"mean_itl_ms": 0.3})
    write_nights(house.baseline, {("1p1d", WORKLOAD): {"mean_itl_ms": [1.0, 1.0]}})
    before = house.baseline.read_bytes()
    arguments = ("--topology", "1p1d", "--pdserve-base-url", URL, "-k", "32-8")
    result = house.run(*arguments)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "pdserve 1p1d: test_sweep?1p1d-32-8? runs again later, on the same servers: mean_itl*",
            f"FAIL: 1p1d {WORKLOAD}: mean_itl_ms * Confirmed by 3 runs (*",
        ]
    )
    assert [(record["repeat"], record["start"]) for record in house.records()] == [
        (0, None),
        (1, None),
        (2, None),
    ]
    house.system()
    house.run(*arguments).assert_outcomes(passed=1)
    assert house.baseline.read_bytes() == before
    assert not (house.path / "state").exists()
    assert endpoint.poll() is None


def test_a_new_cell_of_an_endpoint_is_none_of_the_systems_baseline(
    endpoint: subprocess.Popen[bytes], house: House
) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    write_nights(house.baseline, {("dp", WORKLOAD): {"mean_itl_ms": [1.0, 1.0]}})
    before = house.baseline.read_bytes()
    result = house.run("--topology", "1p1d", "--pdserve-base-url", URL, "-k", "32-8")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["NEW: 1 cell, recorded nowhere (the system's baseline is not of this endpoint)"]
    )
    assert house.baseline.read_bytes() == before
    assert not (house.path / "state").exists()


def test_strict_does_not_take_unproven(endpoint: subprocess.Popen[bytes], house: House) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    house.run("--pdserve-base-url", URL, "-k", "32-8").assert_outcomes(passed=1)  # NEW
    result = house.run("--pdserve-base-url", URL, "--pdserve-strict", "-k", "32-8")
    result.assert_outcomes(failed=1)
    assert "unproven: " in result.stdout.str()
    assert "served: the counters of 1p3d's instances cannot be read" in result.stdout.str()
    assert len(house.records()) == 2


def test_a_wrong_key_is_told(endpoint: subprocess.Popen[bytes], house: House) -> None:
    result = house.run("--pdserve-base-url", URL, "-k", "answers or 32-8")
    result.assert_outcomes(errors=2)
    text = result.stdout.str()
    assert "none of 8 requests completed, 8 failed; first error: ValueError: 401" in text
    assert f"{URL} answered a completion with 401: " in text


@pytest.mark.slow  # it waits for half a minute
def test_an_endpoint_that_does_not_answer(house: House) -> None:
    house.suites("sweep")
    result = house.run("--pdserve-base-url", URL, "-k", "32-8")
    result.assert_outcomes(errors=1)
    assert "did not answer /health within 3" in result.stdout.str()
