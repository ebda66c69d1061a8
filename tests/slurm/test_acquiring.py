"""Nodes are asked for, waited for, looked at and lent; what is in the way is one sentence."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import STUBS
from tests.support.house import SYSTEM
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.onehost import OneHost
from tests.support.onehost import ended
from tests.support.onehost import hold
from tests.support.onehost import said
from tests.support.onehost import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-b")]

LEAKS = {
    "SBATCH_PARTITION": "nonsense",
    "SBATCH_TIMELIMIT": "0:01",
    "SBATCH_EXCLUSIVE": "mcs",
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "7",
    "SLURM_NODELIST": "pd7",
    "SRUN_CPUS_PER_TASK": "9",
    "SQUEUE_FORMAT": "%i",
    "SINFO_FORMAT": "%P",
    "SCANCEL_INTERACTIVE": "1",
}
LOOK = """
import json, subprocess
def test_look(pdserve_cluster):
    asked = ["squeue", "--noheader", "--format=%A|%j|%D|%T"]
    said = subprocess.run(asked, capture_output=True, text=True).stdout
    with open({path!r}, "w") as file:
        json.dump([said.splitlines(), pdserve_cluster.describe()], file)
"""
GPUS = """#!/bin/sh
echo 'Stub GPU, 580.1'
test "$SLURMD_NODENAME" = pd0 || echo 'Stub GPU, 580.1'
"""


def sentence(text: str) -> str:
    """The message of the only error, without a traceback."""
    assert "1 error in " in text, text
    assert "Traceback (most recent call last)" not in text
    message = text.partition(" ERROR at setup of ")[2].partition("\n")[2]
    return re.split(r"\n(?:=====|-----)", message)[0].strip()


def look(house: House, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    """The queue, and how a session describes its nodes, while it holds them."""
    path = house.path / "look.json"
    (house.path / "suites" / "test_hold.py").write_text(LOOK.format(path=str(path)))
    text = said(house, *arguments)
    assert "1 passed" in text, text
    queue, described = json.loads(path.read_text())
    return queue, described


def test_a_partition_that_there_is_not(slurm_house: House) -> None:
    hold(slurm_house, slurm={"partition": "nonsense"})
    process = slurm_house.start()
    text = ended(slurm_house, process)
    assert process.returncode == pytest.ExitCode.TESTS_FAILED
    message = sentence(text)
    assert re.fullmatch(
        r"sbatch took no job: .*invalid partition.*; see \[slurm\] partition in "
        r".*/stub/system\.toml",
        message,
        re.IGNORECASE,
    ), message


@pytest.mark.slow
def test_jobs_that_do_not_start(slurm_house: House, slurm: OneHost) -> None:
    """At the same time, since each takes a while: a partition that is down, and a long queue."""
    hold(slurm_house, slurm={"queue_s": 5})
    down = slurm_house.system("down", cluster={"nodes": 2}, slurm={"partition": "down"})
    log = slurm_house.path / "down.log"
    command = [sys.executable, "-m", "pytest", "suites", "--system", "down"]
    began = time.monotonic()
    with slurm.held(8) as other:
        beside = slurm_house.spawn(command, log)
        text = said(slurm_house)
        beside.wait(25)
        assert slurm.jobs() == [other]
    assert time.monotonic() - began < 25
    assert re.search(
        r"^pdserve stub: Slurm job \d+ waits \(PENDING for 2 s, 1 of 1 in pd\): [a-z ]+ \(\w+\)"
        r"(; expected start [\dT:-]+)?$",
        text,
        re.MULTILINE,
    ), text
    message = sentence(text)
    assert re.fullmatch(
        r"Slurm job \d+ did not start within 5 s \(slurm\.queue_s\): PENDING for 5 s, [a-z ]+ "
        r"\(\w+\)",
        message,
    ), message
    message = sentence(log.read_text())
    assert re.fullmatch(
        r"Slurm job \d+ cannot start: its partition is down \(PartitionDown\); see \[slurm\] in "
        rf"{down}",
        message,
    ), message


@pytest.mark.slow
def test_a_lent_job_is_used_and_left(slurm_house: House, slurm: OneHost) -> None:
    slurm_house.system(cluster={"nodes": 2})
    with slurm.held(3) as job:
        own = ("srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "--job-name=own")
        step = slurm_house.spawn([*own, "sleep", "300"], slurm_house.path / "own.log")
        steps = ("squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%j")
        wait_until(lambda: "own" in slurm.ask(*steps), 20)
        text = said(slurm_house, "--topology", "1p1d", "--pdserve-job-id", job)
        assert "1 passed" in text, text
        assert re.search(
            rf"^pdserve stub: Slurm job {job} on pd0, pd1, already running; its time limit is "
            r"4:00:00 \(the job's own\), 3:59:\d\d is left$",
            text,
            re.MULTILINE,
        ), text
        assert slurm.jobs("%A %T %j") == [f"{job} RUNNING other"]
        assert [name for name in slurm.ask(*steps) if name not in ("extern", "batch")] == ["own"]
        assert step.poll() is None
        step.kill()
        step.wait(10)
    (record,) = slurm_house.records()
    assert (record["cluster"]["lent"], record["cluster"]["job_id"]) == (True, job)
    assert record["nodes"] == ["pd0", "pd1"]


@pytest.mark.slow
def test_a_lent_job_that_is_too_small(slurm_house: House, slurm: OneHost) -> None:
    hold(slurm_house)
    with slurm.held(1) as job:
        message = sentence(said(slurm_house, "--pdserve-job-id", job))
    assert message == f"--pdserve-job-id {job}: the job has 1 nodes, the system needs 2"


@pytest.mark.slow
def test_a_lent_job_that_waits(slurm_house: House, slurm: OneHost) -> None:
    hold(slurm_house)
    done = slurm.run("sbatch", "--parsable", "--hold", "-N2", "-o", "/dev/null", "--wrap", "true")
    job = done.stdout.strip()
    message = sentence(said(slurm_house, "--pdserve-job-id", job))
    assert slurm.jobs() == [job]
    slurm.run("scancel", job)
    assert message == f"--pdserve-job-id {job}: the job is PENDING, it must be RUNNING"


@pytest.mark.slow
def test_a_lent_job_that_nobody_knows(slurm_house: House) -> None:
    hold(slurm_house)
    message = sentence(said(slurm_house, "--pdserve-job-id", "99999"))
    assert message == "--pdserve-job-id 99999: Slurm has no such job"


@pytest.mark.slow
def test_an_sbatch_that_prints_only_the_number(
    slurm_house: House, slurm: OneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around a real job, which is held, and given back."""
    real = shutil.which("sbatch")
    wrapper = slurm_house.path / "bin" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "site: 2 nodes asked for"\nexec {real} --parsable "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    hold(slurm_house)
    queue, described = look(slurm_house)
    assert [line.split("|")[0] for line in queue] == [described["job_id"]]
    wait_until(lambda: not slurm.jobs(), 10)


@pytest.mark.slow
def test_a_job_that_depends_on_one_that_failed_never_starts(
    slurm_house: House, slurm: OneHost
) -> None:
    done = slurm.run("sbatch", "--parsable", "-N1", "-o", "/dev/null", "--wrap", "exit 1")
    failed = done.stdout.strip()
    wait_until(lambda: not slurm.jobs(), 20)
    hold(slurm_house, slurm={"queue_s": 8})
    path = slurm_house.path / "baselines" / "stub" / "system.toml"
    dependency = f'[slurm.parameters]\ndependency = "afterok:{failed}"\n'
    path.write_text(path.read_text() + dependency)
    message = sentence(said(slurm_house))
    assert re.fullmatch(
        r"Slurm job \d+ cannot start: a job that it depends on ended in a way that rules it out "
        rf"\(DependencyNeverSatisfied\); see \[slurm\] in {path}",
        message,
    ), message


@pytest.mark.slow
def test_a_lent_job_of_a_local_system(slurm_house: House) -> None:
    slurm_house.tables = SYSTEM
    hold(slurm_house)
    process = slurm_house.start("--pdserve-job-id", "1")
    text = ended(slurm_house, process)
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
    asked = "ERROR: --pdserve-job-id 1 needs a system of kind slurm"
    assert f"{asked}; 'stub' is of kind 'local'" in text


@pytest.mark.slow
def test_a_lent_job_without_a_number(slurm_house: House) -> None:
    hold(slurm_house)
    process = slurm_house.start("--pdserve-job-id", "12_3")
    text = ended(slurm_house, process)
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --pdserve-job-id '12_3' is not a Slurm job ID" in text


@pytest.mark.slow
def test_the_callers_shell_does_not_leak_and_the_job_says_whose_it_is(
    slurm_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(slurm_house)
    for name, value in LEAKS.items():
        monkeypatch.setenv(name, value)
    queue, described = look(slurm_house)
    for name in LEAKS:
        monkeypatch.delenv(name)
    ((job, name, nodes, state),) = [line.split("|") for line in queue]
    (run,) = slurm_house.runs.iterdir()
    assert re.fullmatch(
        rf"pdserve-{getpass.getuser()}@[\w.-]+-{re.escape(run.name)}-[0-9a-f]{{4}}\.\d", name
    )
    assert (job, nodes, state) == (described["job_id"], "2", "RUNNING")


@pytest.mark.slow
def test_a_bad_node_is_excluded_and_the_record_says_so(
    slurm_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = slurm_house.path / "bin" / "nvidia-smi"
    shown.parent.mkdir()
    shown.write_text(GPUS)
    shown.chmod(0o755)
    beside = f"{shown.parent}:{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin"
    monkeypatch.setenv("PATH", beside)
    hold(slurm_house, cluster={"gpus_per_node": 2}, preflight={"gpus": 2})
    _, described = look(slurm_house)
    text = (slurm_house.path / "pytest.log").read_text()
    why = "shows 1 GPUs, needs 2 (preflight.gpus)"
    assert f"pdserve stub: preflight: pd0 {why}; requesting other nodes" in text
    assert described["excluded"] == {"pd0": why}
    assert described["nodes"] == ["pd1", "pd2"]


@pytest.mark.slow
def test_nodes_that_are_all_bad(slurm_house: House, slurm: OneHost) -> None:
    hold(slurm_house, preflight={"memory_gib": 99999})
    text = said(slurm_house)
    message = sentence(text)
    why = r"has \d+\.\d GiB of memory available, needs 99999 \(preflight\.memory_gib\)"
    assert re.fullmatch(
        rf"preflight: pd2 {why}; pd3 {why}; other nodes were requested 1 times before "
        r"\(slurm\.replacements\)",
        message,
    ), message
    assert re.search(rf"preflight: pd0 {why}; pd1 {why}; requesting other nodes", text)
    wait_until(lambda: not slurm.jobs(), 10)


@pytest.mark.slow
def test_a_node_for_the_client(slurm_house: House) -> None:
    slurm_house.system(slurm={"client_node": True})
    text = said(slurm_house, "--topology", "dp")
    assert "1 passed" in text, text
    assert "on pd0, pd1, pd2, pd3, pd4, after" in text
    (record,) = slurm_house.records()
    assert record["nodes"] == ["pd0", "pd1", "pd2", "pd3"]
    assert record["cluster"]["client_node"] == "pd4"
    assert record["processes"][-1]["name"] == f"bench {WORKLOAD}"
    assert [p["name"] for p in record["processes"] if p["node"] == "pd4"] == [f"bench {WORKLOAD}"]


@pytest.mark.slow
def test_a_client_of_one_process_measures_on_its_own_node(
    slurm_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STUBS / "package"))
    sweep = {"input_lens": [32, 64], "output_lens": [8]}
    slurm_house.system(slurm={"client_node": True}, bench={"client": "vllm"}, sweep=sweep)
    slurm_house.run("--topology", "1p1d").assert_outcomes(passed=2, skipped=1)
    records = slurm_house.records()
    assert [each["client_kind"] for each in records] == ["vllm"] * 2
    assert {each["processes"][-1]["node"] for each in records} == {"pd4"}
    # Its runner told how busy the node was during each run, not since the client's start.
    assert all(each["client_node"]["cores"] >= 1 for each in records)
    (folder,) = slurm_house.runs.glob("*/client")
    assert [each.name for each in folder.iterdir()] == ["worker-1"]
