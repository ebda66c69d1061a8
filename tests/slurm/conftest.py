"""A real Slurm on this machine, from ``docker/slurm/onehost.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ONEHOST = Path(__file__).parents[2] / "docker" / "slurm" / "onehost.py"
NODES = 8
DOWN_AFTER_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHost:
    """A one-host Slurm that runs."""

    folder: Path
    conf: Path

    def run(self, *argv: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command with this Slurm's configuration; its exit code is the caller's to judge."""
        return subprocess.run(
            argv,
            env={**os.environ, "SLURM_CONF": str(self.conf)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``onehost.py`` on this folder."""
        return self.run(sys.executable, str(ONEHOST), *arguments, "--dir", str(self.folder))


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


@pytest.fixture(scope="session")
def installed() -> None:
    """Slurm's programs; on a continuous integration machine they have to be there."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "munged")):
        return
    reason = "Slurm is not installed; python docker/slurm/onehost.py install"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm(installed: None) -> Iterator[OneHost]:
    """A Slurm of eight nodes, pd0 to pd7, that ``SLURM_CONF`` names until the session ends."""
    down_after = f"--down-after={DOWN_AFTER_S}"
    with start_one_host(NODES, down_after) as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(host.conf))
        yield host
