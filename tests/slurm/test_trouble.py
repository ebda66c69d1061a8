"""Trouble with nodes and Slurm during a session: an ERROR that names the thing, never a FAILED."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.house import House
from tests.support.onehost import OneHost
from tests.support.onehost import ended
from tests.support.onehost import said
from tests.support.onehost import wait_bench
from tests.support.onehost import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-a")]

ENDED_S = 60


@contextmanager
def in_a_benchmark(house: House) -> Iterator[list[str]]:
    """A session of 1p1d whose benchmark does not end; then its output, which is an ERROR."""
    house.system(cluster={"nodes": 2}, limits={"bench_start_s": 120})
    house.faults(bench={"hang": True})
    process = house.start("--topology", "1p1d")
    wait_bench(house, process)
    text: list[str] = []
    yield text
    text.append(ended(house, process, ENDED_S))
    check_error(text[0])
    assert house.records() == []


def check_error(text: str) -> None:
    assert re.search(r"\b[12] errors? in ", text), text
    assert "failed" not in text.splitlines()[-1]
    assert "Traceback (most recent call last)" not in text
    assert "another exception occurred" not in text


@pytest.mark.slow
def test_a_node_that_is_lost(slurm_house: House, slurm: OneHost) -> None:
    with in_a_benchmark(slurm_house) as text:
        _, node = slurm.nodes_of_job()
        assert slurm.control("daemon", node, "kill").returncode == 0
        try:
            wait_until(lambda: any(f"{node} down" in line for line in slurm.busy_nodes()), 40)
            wait_until(lambda: not slurm.jobs(), ENDED_S)
        finally:
            assert slurm.control("daemon", node, "start").returncode == 0
    assert f"nodes in trouble: {node} (" in text[0]


@pytest.mark.slow
def test_a_node_that_loses_a_gpu_is_named_instead_of_its_server(
    slurm_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = slurm_house.path / "bin" / "nvidia-smi"
    shown.parent.mkdir()
    counted = slurm_house.path / "gpus"
    counted.write_text("H100, 570\n" * 2)
    shown.write_text(f"#!/bin/sh\ncat {counted}\n")
    shown.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shown.parent}:{os.environ['PATH']}")
    with in_a_benchmark(slurm_house) as text:
        counted.write_text("H100, 570\n")
        (decode,) = (p for p in slurm_house.processes() if "kv_consumer" in p.cmdline())
        decode.kill()
    assert "lost GPUs: 1 GPUs left of 2" in text[0]
    assert "decode[0] on" not in text[0]


@pytest.mark.slow
def test_a_drained_node(slurm_house: House, slurm: OneHost) -> None:
    with in_a_benchmark(slurm_house) as text:
        _, node = slurm.nodes_of_job()
        drain = ("scontrol", "update", f"nodename={node}", "state=drain", "reason=fan")
        assert slurm.run(*drain).returncode == 0
        try:
            wait_until(lambda: not slurm.jobs(), ENDED_S)
        finally:
            slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
    assert f"nodes in trouble: {node} (drain" in text[0]
    assert "fan" in text[0]


@pytest.mark.slow
def test_a_job_that_nobody_can_requeue_but_somebody_cancels(
    slurm_house: House, slurm: OneHost
) -> None:
    with in_a_benchmark(slurm_house) as text:
        (job,) = slurm.jobs()
        done = slurm.run("scontrol", "requeue", job)
        assert done.returncode == 1
        assert "disabled" in done.stderr
        assert slurm.jobs("%A %T") == [f"{job} RUNNING"]
        assert slurm.run("scancel", job).returncode == 0
    assert f"Slurm job {job} was cancelled from outside" in text[0]


def test_a_server_that_ends_by_itself(slurm_house: House) -> None:
    slurm_house.system(cluster={"nodes": 2})
    slurm_house.faults(decode_0={"exit_after_streams": 4})
    text = said(slurm_house, "--topology", "1p1d")
    check_error(text)
    assert "decode[0] on pd1 exited with code 3 " in text
    assert "stub: engine core died" in text
    assert "in trouble" not in text


@pytest.mark.slow
def test_a_program_that_nodes_do_not_have(slurm_house: House) -> None:
    slurm_house.system(cluster={"nodes": 2}, programs={"vllm": "no-such-vllm"})
    text = said(slurm_house, "--topology", "1p1d")
    check_error(text)
    (line,) = [line for line in text.splitlines() if line.startswith("prefill[0] cannot")]
    assert line == (
        "prefill[0] cannot be started on pd0: no such program on this node's PATH: no-such-vllm"
    )


@pytest.mark.slow
def test_a_controller_that_starts_anew(slurm_house: House, slurm: OneHost) -> None:
    """The next topology's step meets nodes that have not answered the new controller yet."""
    slurm_house.system(cluster={"nodes": 2})
    slurm_house.faults(aggregated_0={"token_ms": 150}, aggregated_1={"token_ms": 150})
    process = slurm_house.start("--topology", "route2,1p1d")
    wait_bench(slurm_house, process)
    assert slurm.control("daemon", "ctld", "stop").returncode == 0
    assert slurm.control("daemon", "ctld", "start").returncode == 0
    text = ended(slurm_house, process)
    assert "2 passed" in text, text


@pytest.mark.slow
def test_a_controller_that_is_away_until_the_benchmark_ends(
    slurm_house: House, slurm: OneHost
) -> None:
    slurm_house.system(cluster={"nodes": 2}, limits={"warmup_s": 60})
    slurm_house.faults(aggregated_0={"token_ms": 1000})
    process = slurm_house.start("--topology", "dp")
    wait_bench(slurm_house, process)
    assert slurm.control("daemon", "ctld", "kill").returncode == 0
    try:
        # The client's result is gone once the record is written.
        ends = ("*/dp/*.bench.json", "*/dp/*.record.json")
        wait_until(lambda: any(list(slurm_house.runs.glob(end)) for end in ends), ENDED_S)
    finally:
        assert slurm.control("daemon", "ctld", "start").returncode == 0
    text = ended(slurm_house, process)
    assert "1 passed" in text, text


@pytest.mark.slow
def test_a_time_limit_that_is_reached(slurm_house: House) -> None:
    slurm_house.system(
        cluster={"nodes": 2}, limits={"bench_start_s": 300}, slurm={"time_limit_min": 1}
    )
    slurm_house.faults(bench={"hang": True})
    text = said(slurm_house, "--topology", "1p1d", seconds=180)
    check_error(text)
    assert "reached its time limit of 1 min (slurm.time_limit_min)" in text


@pytest.mark.slow
def test_a_time_limit_of_a_lent_job_is_its_own(slurm_house: House, slurm: OneHost) -> None:
    slurm_house.system(cluster={"nodes": 2}, limits={"bench_start_s": 300})
    slurm_house.faults(bench={"hang": True})
    made = slurm.run("salloc", "--no-shell", "--nodes=2", "--exclusive", "--time=1", "-J", "other")
    assert made.returncode == 0, made.stderr
    (job,) = slurm.jobs()
    text = said(slurm_house, "--topology", "1p1d", "--pdserve-job-id", job, seconds=180)
    check_error(text)
    assert f"Slurm job {job} reached its time limit of 1:00 (the job's own)" in text
