"""What disturbed a run is named beside it: waits, stalls, a busy node, a cache that was warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from pytest_pdserve.backends.hosts.node_load import load_between
from pytest_pdserve.backends.hosts.node_load import sample_node
from tests.support.house import House

SPIN = "while True: pass"


def record_of(house: House, topology: str) -> dict[str, Any]:
    (path,) = house.runs.glob(f"*/{topology}/*.record.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_an_instance_that_stands_still_is_named(house: House) -> None:
    house.suites("sweep")
    house.system(sweep={"num_prompts": 4})
    house.faults(decode_1={"first_ms": 5000})
    result = house.run("--topology", "1p2d")
    result.stdout.re_match_lines(
        [r"note: decode\[1\] had requests and made no token for \d s \[1p2d .*\]"]
    )
    stalls = {c["name"]: c["stall_s"] for c in record_of(house, "1p2d")["served"]}
    assert stalls["decode[1]"] > 3
    assert stalls["decode[0]"] < 3


def test_a_rate_that_the_client_holds_back_is_told_with_the_wait(house: House) -> None:
    house.suites("sweep")
    house.system(sweep={"num_prompts": 6, "request_rate": 100.0, "max_concurrency": 1})
    result = house.run("--topology", "dp", "-rs")
    result.stdout.re_match_lines(
        [
            r"note: \d.* requests/s were sent, 100 requested \(at least 95%\); requests waited "
            r"\d+ ms on average before they were sent; latencies are not judged: .*",
        ]
    )
    metrics = record_of(house, "dp")["metrics"]
    wait, ttft = metrics["mean_client_queue_time_ms"], metrics["mean_ttft_ms"]
    assert wait > 10
    assert abs(metrics["mean_ttft_including_client_queue_ms"] - wait - ttft) < 1


@pytest.mark.slow
def test_other_processes_of_the_clients_node_are_named(house: House) -> None:
    house.suites("sweep")
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", SPIN]) as busy:
        session = house.start("--topology", "dp")
        session.wait(timeout=60)
        busy.kill()
    text = (house.path / "pytest.log").read_text()
    assert "note: the client's node was busy: other processes used " in text
    load = record_of(house, "dp")["client_node"]
    assert load["other_cores"] > 0.2
    assert load["other_processes"]


@pytest.mark.slow
def test_prefix_caches_are_emptied_where_servers_offer_it(house: House) -> None:
    house.suites("sweep")
    house.run("--topology", "1p1d", "--pdserve-no-record")
    assert record_of(house, "1p1d")["prefix_cache_reset"] is None
    house.system(env={"VLLM_SERVER_DEV_MODE": "1"})
    house.run("--topology", "2p2d")
    assert record_of(house, "2p2d")["prefix_cache_reset"] is True


@pytest.mark.slow
def test_a_real_process_is_seen_and_its_children_are_ours() -> None:
    first = sample_node()
    assert first is not None
    spin = "import time\nwhile time.process_time() < 0.5: pass"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", spin + "\ninput()"], stdin=-1) as busy:
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            last = sample_node()
            assert last is not None
            if busy.pid in last.processes and last.processes[busy.pid].ticks >= 50:
                break
            time.sleep(0.05)
        own = load_between(first, last, roots={os.getpid()})
        foreign = load_between(first, last, roots={0})
        busy.communicate(b"\n")
    assert own is not None
    assert foreign is not None
    # Equal where others use all cores: what other processes used is at most what was busy.
    assert foreign["other_cores"] >= own["other_cores"]
    assert foreign["other_cores"] > 0
    assert foreign["busy_cores"] > 0
