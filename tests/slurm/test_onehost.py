"""The one-host Slurm itself: what other tests in this folder stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.onehost import DOWN_AFTER_S
from tests.support.onehost import OneHost
from tests.support.onehost import start_one_host
from tests.support.onehost import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-c")]

# A ping that fails takes up to twice MessageTimeout (3 s here), and this machine is small.
DOWN_MARGIN_S = 25.0


def runs(pid: int) -> bool:
    """Tell whether a process is there and no zombie: who adopts a daemon may reap it late."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def state_of(host: OneHost, node: str) -> str:
    asked = host.run("sinfo", "--noheader", "--Node", "-p", "pd", "-n", node, "--format=%T")
    return asked.stdout.strip()


def pids_of(host: OneHost) -> dict[str, int]:
    lines = [line.split() for line in host.control("status").stdout.splitlines()]
    return {name: int(pid) for name, pid, alive in lines if alive == "alive"}


@pytest.fixture
def job(slurm: OneHost) -> Iterator[str]:
    """The number of a job that holds pd0 to pd3."""
    done = slurm.run(
        "sbatch", "--parsable", "-w", "pd[0-3]", "-N4", "-o", "/dev/null", "--wrap", "sleep 600"
    )
    number = done.stdout.strip()
    assert done.returncode == 0, done.stderr
    try:
        wait_until(lambda: slurm.run("squeue", "-hj", number, "-o%T").stdout == "RUNNING\n", 10)
        yield number
    finally:
        slurm.run("scancel", number)
        wait_until(lambda: slurm.run("squeue", "-hj", number).stdout == "", 20)


def test_srun_reaches_four_nodes(slurm: OneHost) -> None:
    done = slurm.run("srun", "-N4", "printenv", "SLURMD_NODENAME")
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert len(set(names)) == 4
    assert set(names) <= {f"pd{i}" for i in range(8)}


def test_step_on_a_chosen_node_hands_back_its_exit_code(slurm: OneHost, job: str) -> None:
    step = ("srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", "pd2")
    done = slurm.run(*step, "sh", "-c", "echo $SLURMD_NODENAME; exit 7")
    assert (done.returncode, done.stdout) == (7, "pd2\n")


def test_there_is_no_accounting(slurm: OneHost) -> None:
    done = slurm.run("sacct")
    assert done.returncode == 1
    assert "accounting storage is disabled" in done.stderr


def test_partition_down_starts_nothing(slurm: OneHost) -> None:
    done = slurm.run("sbatch", "--parsable", "-p", "down", "--wrap", "true")
    number = done.stdout.strip()
    asked = slurm.run("squeue", "-hj", number, "-o%T %r")
    slurm.run("scancel", number)
    assert asked.stdout == "PENDING PartitionDown\n"


def test_two_run_side_by_side(slurm: OneHost) -> None:
    with start_one_host(2) as other:
        done = other.run("srun", "-N2", "printenv", "SLURMD_NODENAME", "SLURM_CLUSTER_NAME")
        assert done.returncode == 0, done.stderr
        mine = slurm.run("srun", "-w", "pd7", "printenv", "SLURMD_NODENAME", "SLURM_CLUSTER_NAME")
        assert mine.stdout.split()[0] == "pd7"
        assert mine.stdout.split()[1] not in done.stdout.split()
        assert len(pids_of(other)) == 4
    assert len(pids_of(slurm)) == 10


def test_started_twice_in_one_folder_is_refused(slurm: OneHost) -> None:
    done = slurm.control("start")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"onehost: a one-host Slurm already runs in {slurm.folder}; stop it first\n"
    )


def test_folder_too_long_for_sockets_is_refused(slurm: OneHost) -> None:
    long = OneHost(folder=slurm.folder / ("x" * 80), conf=slurm.conf)
    done = long.control("start")
    assert done.returncode == 1
    assert "is too long for Unix sockets" in done.stderr
    assert not long.folder.exists()


@pytest.mark.slow
def test_stop_leaves_no_process(slurm: OneHost, tmp_path: Path) -> None:
    sleeper = tmp_path / "pid"
    with start_one_host(2) as host:
        pids = pids_of(host)
        assert set(pids) == {"munged", "ctld", "pd0", "pd1"}
        # The step ignores SIGTERM, and its daemon is gone: both the step and its child are strays.
        script = f"trap '' TERM; echo $$ > {sleeper}; while :; do sleep 1; done"
        host.run("sbatch", "-w", "pd1", "-o", "/dev/null", "--wrap", script)
        wait_until(lambda: sleeper.is_file() and sleeper.read_text() != "", 10)
        assert host.control("daemon", "pd1", "kill").returncode == 0
        step = int(sleeper.read_text())
        assert runs(step)
    assert [name for name, pid in pids.items() if runs(pid)] == []
    assert not runs(step)


def test_stop_twice_is_no_trouble(slurm: OneHost) -> None:
    with start_one_host(1) as host:
        assert host.control("stop").returncode == 0
        assert pids_of(host) == {}
        assert (host.folder / "log" / "ctld.log").stat().st_size > 0


@pytest.mark.slow
def test_killed_daemon_takes_its_node_down_until_it_is_back(slurm: OneHost) -> None:
    before = pids_of(slurm)["pd6"]
    assert slurm.control("daemon", "pd6", "kill").returncode == 0
    try:
        assert not runs(before)
        wait_until(lambda: state_of(slurm, "pd6").startswith("down"), DOWN_AFTER_S + DOWN_MARGIN_S)
    finally:
        assert slurm.control("daemon", "pd6", "start").returncode == 0
    wait_until(lambda: state_of(slurm, "pd6") == "idle", 20)
    done = slurm.run("srun", "-w", "pd6", "printenv", "SLURMD_NODENAME")
    assert done.stdout == "pd6\n"


@pytest.mark.slow
def test_job_outlives_its_controller(slurm: OneHost, job: str) -> None:
    assert slurm.control("daemon", "ctld", "stop").returncode == 0
    assert slurm.control("daemon", "ctld", "start").returncode == 0
    wait_until(lambda: slurm.run("squeue", "-hj", job, "-o%T").stdout == "RUNNING\n", 20)
    # Until the nodes have answered the new controller (4 s), it says "Memory required by task is
    # not available" (22.05).
    step = ("srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", "pd1", "true")
    wait_until(lambda: slurm.run(*step).returncode == 0, 30)


@pytest.mark.slow
def test_sixty_four_nodes(installed: None) -> None:
    with start_one_host(64) as host:
        done = host.run("srun", "-N64", "printenv", "SLURMD_NODENAME")
        assert len(set(done.stdout.split())) == 64, done.stderr
