"""``--pdserve-base-url``: the same suites against an endpoint that somebody else runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.drawn import write_nights
from tests.support.endpoints import endpoint as stub_endpoint
from tests.support.endpoints import page
from tests.support.house import ENDPOINT_PORT
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.house import only_sentence
from tests.support.house import wait_text

URL = f"http://127.0.0.1:{ENDPOINT_PORT}"
IDLE = b"# TYPE vllm:request_success_total counter\nvllm:request_success_total 0.0\n"


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


@pytest.mark.usefixtures("endpoint")
def test_the_client_of_another_environment_measures_it(house: House) -> None:
    python = house.path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$1" in *.py) echo \'{"vllm": "9.8.7"}\'; exit;; esac\n'
        f'shift 2; exec "{house.programs["vllm"]}" "$@"\n'
    )
    python.chmod(0o755)
    house.system(bench={"client": "vllm-command", "python": str(python)})
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    house.run("--topology", "1p1d", "--pdserve-base-url", URL, "-k", "32-8")
    (record,) = house.records()
    assert record["versions"]["client"] == "9.8.7"


@pytest.mark.slow
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
            "pdserve 1p1d: test_sweep?1p1d-32-8? runs again later, on the same servers:*",
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
    assert list((house.path / "state").rglob("sweep.json")) == []
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
    assert list((house.path / "state").rglob("sweep.json")) == []


@pytest.mark.slow
def test_strict_does_not_take_unproven(endpoint: subprocess.Popen[bytes], house: House) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    house.run("--pdserve-base-url", URL, "-k", "32-8").assert_outcomes(passed=1)  # NEW
    result = house.run("--pdserve-base-url", URL, "--pdserve-strict", "-k", "32-8")
    result.assert_outcomes(failed=1)
    assert "unproven: " in result.stdout.str()
    assert "served: the counters of 1p3d's instances cannot be read" in result.stdout.str()
    assert len(house.records()) == 2


def test_a_missing_key_is_told(endpoint: subprocess.Popen[bytes], house: House) -> None:
    result = house.run("--pdserve-base-url", URL, "-k", "32-8")
    result.assert_outcomes(errors=1)
    said = (
        f'{URL}/v1/models answered 401 Unauthorized: {{"error": "Unauthorized"}}; it requires an '
        "API key: set PDSERVE_API_KEY"
    )
    assert said in result.outlines


def test_an_endpoint_that_does_not_answer_is_told(house: House) -> None:
    house.suites("sweep")
    result = house.run("--pdserve-base-url", URL, "-k", "32-8")
    result.assert_outcomes(errors=1)
    assert f"{URL}/v1/models cannot be reached: [Errno 111] Connection refused" in result.outlines


def test_named_instances_prove_the_path(endpoint: subprocess.Popen[bytes], house: House) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    named = ("--pdserve-instance-url", f"aggregated={URL}/v1")
    result = house.run("--topology", "dp", "--pdserve-base-url", URL, *named)
    result.assert_outcomes(passed=3, skipped=2)
    said = " ".join(result.stdout.str().split())
    assert f"pdserve dp: path proven with 1 requests: {URL} " in said
    result.stdout.no_fnmatch_line("unproven: *")
    (record,) = house.records()
    assert [(each["name"], each["requests"]) for each in record["served"]] == [("aggregated[0]", 8)]
    assert record["warm_load"] == {}
    assert record["prefix_cache_reset"] is None


@pytest.mark.slow
def test_an_instance_that_serves_nothing_is_named(
    endpoint: subprocess.Popen[bytes], house: House
) -> None:
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    with stub_endpoint({"/metrics": page(200, IDLE)}) as idle:
        named = ("--pdserve-instance-url", f"aggregated={idle.url}")
        result = house.run("--topology", "dp", "--pdserve-base-url", URL, *named, "-k", "32-8")
    result.assert_outcomes(errors=1)
    assert f"64 requests to {URL}, and none reached aggregated[0]" in result.outlines


def test_instances_that_no_topology_has_are_refused(house: House) -> None:
    house.suites("sweep")
    named = ("--pdserve-instance-url", "prefill=http://h:1")
    result = house.run("--topology", "1p1d", "--pdserve-base-url", URL, *named)
    assert only_sentence(result) == (
        "--pdserve-instance-url names 1 prefill, but topology '1p1d' has 1 prefill and 1 decode; "
        "name each of its instances once, or none"
    )


def test_the_line_that_serve_prints_measures_and_proves_the_path(house: House) -> None:
    house.suites("sweep")
    log, runs = house.path / "serve.log", house.path / "runs elsewhere"
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", "serve", "--system", "stub"]
    server = house.spawn([*command, "--topology", "1p1d", "--runs", str(runs)], log)
    try:
        wait_text(server, log, "Ctrl-C ends it.")
        (line,) = re.findall(r"^measure +(.*)$", log.read_text(), re.MULTILINE)
        pasted = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd="/",
            env={name: value for name, value in os.environ.items() if name != "PATH"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=20)
    said = " ".join(pasted.stdout.split())
    assert "pdserve 1p1d: path proven with 2 requests: " in said
    assert "1 passed, 1 skipped" in said
    assert "unproven: " not in said
    assert str(runs) in said
