"""A real Slurm on this machine, from ``docker/slurm/onehost.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.house import MARK
from tests.support.house import SYSTEM
from tests.support.house import House
from tests.support.house import Tables

ONEHOST = Path(__file__).parents[2] / "docker" / "slurm" / "onehost.py"
NODES = 8
DOWN_AFTER_S = 5
LEASE_S = 5
TABLES: Tables = {
    **SYSTEM,
    "cluster": {**SYSTEM["cluster"], "kind": "slurm"},
    "slurm": {"interface": "lo", "lease_s": LEASE_S, "beat_s": 1},
}
HOLD = "def test_hold(pdserve_cluster): pass"
"""A test that only holds nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHost:
    """A one-host Slurm that runs."""

    folder: Path
    conf: Path

    def run(self, *argv: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command with this Slurm's configuration; its exit code is the caller's to judge.

        Without the mark of a house: daemons that a test starts anew are not what it must end.
        """
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        return subprocess.run(
            argv,
            env={**environment, "SLURM_CONF": str(self.conf)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def ask(self, *argv: str) -> list[str]:
        """What a command prints, by line."""
        done = self.run(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def jobs(self, form: str = "%A") -> list[str]:
        """Every job that waits, runs or is being ended."""
        return self.ask("squeue", "--noheader", f"--format={form}")

    def nodes_of_job(self) -> list[str]:
        """Nodes of the only job."""
        (nodes,) = self.jobs("%N")
        return self.ask("scontrol", "show", "hostnames", nodes)

    def busy_nodes(self) -> list[str]:
        """Nodes that could not start a job now, with their state."""
        lines = self.ask("sinfo", "--noheader", "--Node", "--partition=pd", "--format=%N %T")
        return [line for line in lines if not line.endswith(" idle")]

    @contextmanager
    def held(self, nodes: int) -> Iterator[str]:
        """A job of somebody else's on *nodes*; its number."""
        done = self.run("salloc", "--no-shell", f"--nodes={nodes}", "--exclusive", "-J", "other")
        assert done.returncode == 0, done.stderr
        (job,) = self.jobs()
        try:
            yield job
        finally:
            self.run("scancel", job)
            wait_until(lambda: job not in self.jobs(), 20)

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``onehost.py`` on this folder."""
        return self.run(sys.executable, str(ONEHOST), *arguments, "--dir", str(self.folder))


def wait_until(done: Callable[[], object], seconds: float) -> float:
    """Wait for a condition; how long that took, in seconds."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s"
        time.sleep(0.1)
    return time.monotonic() - began


@contextmanager
def start_one_host(nodes: int, *options: str) -> Iterator[OneHost]:
    """Start a one-host Slurm in a short new folder (sockets), and stop it whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="pds", dir="/tmp"))
    host = OneHost(folder=folder, conf=folder / "slurm.conf")
    try:
        started = host.control("start", "--nodes", str(nodes), *options)
        assert started.returncode == 0, started.stderr
        assert started.stdout == f"export SLURM_CONF={host.conf}\n"
        yield host
    finally:
        stopped = host.control("stop")
        assert stopped.returncode == 0, stopped.stderr
        shutil.rmtree(folder)


def hold(house: House, **tables: Mapping[str, Any]) -> None:
    """Have the house only hold nodes; two of them, unless *tables* say otherwise."""
    shutil.rmtree(house.path / "suites")
    (house.path / "suites").mkdir()
    (house.path / "suites" / "test_hold.py").write_text(HOLD)
    house.system(**{**tables, "cluster": {"nodes": 2, **tables.get("cluster", {})}})


def said(house: House, *arguments: object, seconds: float = 90) -> str:
    """What pytest prints, run to its end."""
    return ended(house, house.start(*arguments), seconds)


def ended(house: House, process: subprocess.Popen[bytes], seconds: float = 90) -> str:
    """What pytest printed, once it has ended."""
    try:
        process.wait(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return (house.path / "pytest.log").read_text()


def wait_bench(house: House, process: subprocess.Popen[bytes]) -> None:
    """Wait until a benchmark runs."""

    def runs() -> bool:
        assert process.poll() is None, (house.path / "pytest.log").read_text()[-3000:]
        logs = house.runs.glob("*/*/*.bench.log")
        return any("bench starts" in log.read_text() for log in logs)

    wait_until(runs, 60)
