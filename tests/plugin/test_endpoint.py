"""``--pdserve-base-url``: the same suites against an endpoint that somebody else runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

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
    house.counts("1p1d")
    result = house.run("--topology", "1p1d", "--pdserve-base-url", URL, "-rs")
    result.assert_outcomes(passed=2, skipped=2)
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


def test_strict_does_not_take_unproven(endpoint: subprocess.Popen[bytes], house: House) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    house.counts("1p3d")
    house.run("--pdserve-base-url", URL, "-k", "sweep").assert_outcomes(passed=1)  # NEW
    result = house.run("--pdserve-base-url", URL, "--pdserve-strict", "-k", "sweep")
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
    result = house.run("--pdserve-base-url", URL)
    result.assert_outcomes(errors=1)
    assert "did not answer /health within 3" in result.stdout.str()
