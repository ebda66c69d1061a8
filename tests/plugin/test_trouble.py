"""Trouble with machines while running: an ERROR that names the thing and its log, at once."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.support.drawn import write_nights
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.house import only_sentence


@pytest.fixture(autouse=True)
def sweep(house: House) -> None:
    house.suites("sweep")


def error(house: House, topology: str, seconds: float) -> str:
    """What a run whose only test must be an ERROR prints, without a traceback, in time."""
    began = time.monotonic()
    result = house.run("--topology", topology, "-k", "not whole")
    assert time.monotonic() - began < seconds
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert "Traceback (most recent call last)" not in text
    assert "another exception occurred" not in text
    return text


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("topology", "process", "name"),
    [
        ("1p1d", "decode_0", "decode[0] on local1"),
        ("dp", "aggregated_0_rank2", "aggregated[0]/rank2 on local2"),
        ("route2", "router", "router on local0"),
    ],
)
def test_a_process_that_dies_at_start(topology: str, process: str, name: str, house: House) -> None:
    house.faults(**{process: {"exit_at_start": 3}})
    text = error(house, topology, 15)
    log = f"/{topology}/logs/{process.replace('_', '-')}.log ends:"
    assert f"{name} exited with code 3 " in text
    assert log in text
    assert "stub: no such device" in text or "stub: no route" in text
    assert house.records() == []


def test_an_instance_that_is_never_ready(house: House) -> None:
    house.system(limits={"ready_s": 2})
    house.faults(decode_0={"never_ready": True})
    text = error(house, "1p1d", 15)
    assert "decode[0] did not answer /health within 2 s (limits.ready_s); " in text
    assert "decode-0.log ends:\nstub: decode-0 starts" in text


@pytest.mark.slow
def test_an_instance_that_dies_in_the_middle_of_a_cell(house: House) -> None:
    house.faults(decode_0={"exit_after_streams": 4})
    text = error(house, "1p1d", 20)
    assert "decode[0] on local1 exited with code 3 " in text
    assert "stub: engine core died" in text


@pytest.mark.slow
def test_a_router_that_dies_in_the_middle_of_a_cell(house: House) -> None:
    house.faults(router={"exit_after": 6})
    text = error(house, "route2", 20)
    assert "router on local0 exited with code 4 " in text
    assert "stub: router died" in text


@pytest.mark.slow
def test_an_idle_instance_is_named(house: House) -> None:
    house.faults(router={"only_first": True})
    text = error(house, "route2", 30)
    assert "64 requests to http://127.0.0.1:27" in text
    assert "and none reached aggregated[1]" in text


def test_a_decode_instance_whose_transfers_fail(house: House) -> None:
    house.faults(decode_0={"failed_transfers": 1})
    text = error(house, "1p1d", 20)
    assert "2 requests through prefill and decode moved 2 KV caches over NIXL, 2 failed" in text


@pytest.mark.slow
def test_a_router_that_skips_prefill(house: House) -> None:
    house.faults(router={"skip_prefill": True})
    text = error(house, "1p1d", 40)
    assert "and none reached prefill[0]" in text


@pytest.mark.slow
def test_a_benchmark_that_hangs_by_itself_is_told_with_idle_instances(house: House) -> None:
    house.system(limits={"bench_start_s": 1})
    house.faults(bench={"hang": True})
    text = error(house, "dp", 25)
    assert (
        f"bench {WORKLOAD} did not end within 4 s, the limit for this load "
        "(limits.slowest_tok_s); 8 of 8 requests have no answer; aggregated[0] has no request; "
    ) in text
    assert f"{WORKLOAD}.0.bench.log ends:\nstub: bench starts" in text


@pytest.mark.slow
def test_an_instance_that_hangs_is_named_with_its_requests_and_since_when(house: House) -> None:
    house.system(limits={"bench_start_s": 2})
    house.faults(decode_0={"hang_after_streams": 3})
    text = error(house, "1p1d", 30)
    (line,) = [each for each in text.splitlines() if each.startswith(f"bench {WORKLOAD} did not")]
    assert re.search(
        r"; 5 of 8 requests have no answer; prefill\[0\] has no request; decode\[0\] has 4 running "
        r"and 0 waiting requests and has made no token for \d s \(since \d\d:\d\d:\d\d\); ",
        line,
    )


@pytest.mark.slow
def test_a_benchmark_that_fails(house: House) -> None:
    house.faults(bench={"exit_bench": 1})
    text = error(house, "dp", 15)
    assert f"bench {WORKLOAD} exited with code 1; " in text
    assert "stub: bench cannot" in text


@pytest.mark.slow
def test_a_benchmark_without_a_result(house: House) -> None:
    house.faults(bench={"no_result": True})
    text = error(house, "dp", 15)
    assert f"bench {WORKLOAD} exited with code 0 but wrote no " in text


def test_an_attached_system_without_an_endpoint(house: House) -> None:
    house.system(cluster={"kind": "attached"}, judgement={"host_references": False})
    result = house.run("--topology", "dp")
    assert only_sentence(result) == (
        "system 'stub' is of kind 'attached' and names no endpoint; give --pdserve-base-url, or "
        "[attached] base_url in the system file"
    )


@pytest.mark.slow
def test_a_topology_in_trouble_does_not_stop_the_next(house: House) -> None:
    house.faults(decode_0={"exit_at_start": 3})
    result = house.run("--topology", "1p1d,dp")
    result.assert_outcomes(errors=1, passed=1, skipped=2)


@pytest.mark.slow
def test_a_claim_on_a_topology_that_was_lost_is_no_failure(house: House) -> None:
    house.suites("claims")
    house.system(judgement={"claims": "enforce"})
    house.faults(every={}, decode_2={"exit_at_start": 3})  # only 1p3d has a third
    result = house.run("--topology", "2p2d,1p3d", "-k", "32-8 or 2p2d-ttft", "-rs")
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    said = (
        "claim not judged: 1p3d ended in an ERROR in this session "
        "(suites/sweep/test_sweep.py::test_sweep[1p3d-32-8])"
    )
    assert said in result.stdout.str()


@pytest.mark.slow
def test_a_claim_on_a_cell_that_was_invalid_is_no_failure(house: House) -> None:
    house.suites("claims")
    house.system(judgement={"claims": "enforce"})
    house.faults(every={"fail_streams": True})
    (house.path / "conftest.py").write_text(
        "def pytest_sessionfinish(session):\n"
        "    from pytest_pdserve.plugin.trouble import broken_key\n"
        "    print('lost as a whole:', sorted(session.config.stash[broken_key]))\n"
    )
    result = house.run("--topology", "1p3d,2p2d", "-k", "32-8 or 2p2d-ttft", "-rs")
    result.assert_outcomes(errors=2, skipped=1)
    said = f"claim not judged: the run of {WORKLOAD} on 1p3d is invalid in this session"
    assert said in result.stdout.str()
    assert "lost as a whole: []" in result.stdout.str()


def test_a_baseline_of_other_hardware_is_one_sentence(house: House) -> None:
    write_nights(house.baseline, {("dp", WORKLOAD): {"mean_itl_ms": [8.0]}})
    data = json.loads(house.baseline.read_text())
    house.baseline.write_text(json.dumps({**data, "fingerprint": "0123456789ab"}))
    text = error(house, "dp", 15)
    assert f"{house.baseline} was measured on another host or with another system file" in text
    assert "move it away, and the next session records a new reference" in text
    assert "starting" not in text
