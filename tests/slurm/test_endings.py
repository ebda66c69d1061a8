"""However a session ends, its nodes are given back and nothing of it runs on, in time."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time

import psutil
import pytest

from tests.support.house import House
from tests.support.house import wait_text
from tests.support.onehost import LEASE_S
from tests.support.onehost import OneHost
from tests.support.onehost import ended
from tests.support.onehost import hold
from tests.support.onehost import wait_bench
from tests.support.onehost import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-c")]

KILLED_S = 90
TERMINATED_S = 15
SESSION_S = 8.0
"""How long a session of 1p1d takes here, from start to end."""
AT_ONCE_S = 15
IN_THE_WAY = {
    "fixture": """
import pytest
@pytest.fixture
def broken(pdserve_cluster):
    raise RuntimeError("not mine")
def test_hold(broken): pass
""",
    "setup": """
def pytest_runtest_setup(item):
    if item.name == "test_again":
        raise RuntimeError("not mine")
""",
    "report": """
def pytest_runtest_logreport(report):
    raise RuntimeError("not mine")
""",
    "report and sessionfinish": """
import pytest
def pytest_runtest_logreport(report):
    raise RuntimeError("not mine")
@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    raise RuntimeError("not mine either")
""",
    "exit": """
import os
def pytest_runtest_logreport(report):
    os._exit(7)
""",
}


@pytest.fixture(autouse=True)
def interrupted(slurm_house: House) -> None:
    slurm_house.may_be_interrupted()


def is_on_a_node(process: psutil.Process) -> bool:
    return any(parent.name().startswith("slurmstepd") for parent in process.parents())


def wait_clean(house: House, host: OneHost, seconds: float) -> None:
    """Wait until no job and no process of the session is left."""
    deadline = time.monotonic() + seconds
    while (left := host.jobs("%A %j %T") + house.survivors()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "limit_s"),
    [(signal.SIGKILL, KILLED_S), (signal.SIGTERM, TERMINATED_S)],
    ids=["KILL", "TERM"],
)
@pytest.mark.parametrize(
    ("times", "together"),
    [pytest.param(1, 3, id="3"), pytest.param(20, 1, id="20", marks=pytest.mark.slow)],
)
def test_a_signal_at_random_moments(
    number: signal.Signals,
    limit_s: float,
    times: int,
    together: int,
    slurm_house: House,
    slurm: OneHost,
) -> None:
    """Three sessions side by side once, or twenty one after the other."""
    slurm_house.system(cluster={"nodes": 2})
    chance = random.Random(times)
    for _ in range(times):
        moments = sorted(chance.uniform(0.3, SESSION_S) for _ in range(together))
        began = time.monotonic()
        processes = [slurm_house.start("--topology", "1p1d") for _ in moments]
        for process, moment in zip(processes, moments, strict=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, began + moment - time.monotonic()))
            process.send_signal(number)
        wait_clean(slurm_house, slurm, limit_s)
        for process in processes:
            process.wait(10)


@pytest.mark.slow
def test_interrupted_in_the_middle_of_a_benchmark(slurm_house: House, slurm: OneHost) -> None:
    slurm_house.system(cluster={"nodes": 2})
    slurm_house.faults(every={"child": True}, bench={"hang": True})
    process = slurm_house.start("--topology", "1p1d")
    wait_bench(slurm_house, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    text = ended(slurm_house, process, TERMINATED_S)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, text
    wait_clean(slurm_house, slurm, began + TERMINATED_S - time.monotonic())


@pytest.mark.slow
def test_the_login_node_dies(slurm_house: House, slurm: OneHost) -> None:
    slurm_house.system(cluster={"nodes": 2})
    slurm_house.faults(every={"ignore_term": True, "child": True}, bench={"hang": True})
    process = slurm_house.start("--topology", "1p1d")
    wait_bench(slurm_house, process)
    ours = slurm_house.processes()
    here = [each for each in ours if not is_on_a_node(each)]
    commands = [" ".join(each.cmdline()) for each in here]
    assert any("guard.py" in command for command in commands)
    assert any(command.startswith("srun") for command in commands)
    assert len(ours) > len(here)
    for each in here:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait(10)
    wait_clean(slurm_house, slurm, LEASE_S + 60)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "where",
    [
        *("fixture", "setup", "report"),
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("report and sessionfinish", "exit")),
    ],
)
def test_an_exception_of_the_users(where: str, slurm_house: House, slurm: OneHost) -> None:
    hold(slurm_house)
    suites = slurm_house.path / "suites"
    if where == "fixture":
        (suites / "test_hold.py").write_text(IN_THE_WAY[where])
    else:
        with (suites / "test_hold.py").open("a") as file:
            file.write("\ndef test_again(pdserve_cluster): pass\n")
        (suites / "conftest.py").write_text(IN_THE_WAY[where])
    text = ended(slurm_house, slurm_house.start())
    assert "Slurm job " in text
    assert "not mine" in text or where == "exit"
    wait_clean(slurm_house, slurm, AT_ONCE_S)


def test_a_killed_session_that_waits_in_the_queue(slurm_house: House, slurm: OneHost) -> None:
    hold(slurm_house)
    with slurm.held(8) as other:
        process = slurm_house.start()
        wait_until(lambda: len(slurm.jobs()) == 2, 30)
        wait_text(process, slurm_house.path / "pytest.log", " waits")
        process.kill()
        process.wait(10)
        wait_until(lambda: slurm.jobs() == [other], KILLED_S)
        assert slurm_house.survivors(10) == []
