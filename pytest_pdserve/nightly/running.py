"""The session of a night: pytest in a process of its own, ended where it outlives its deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.values.errors import LaunchError

RELEASE_S = 600.0
"""Seconds that a session is given to stop its servers and release its nodes once it is told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a night measures."""

    suites: tuple[str, ...]
    """Files, folders or test ids."""
    system: str
    """Name of the system."""
    report: Path
    """File for the report of the session."""
    rootdir: Path
    """Root of the project."""
    topology: str | None = None
    """Topologies, as ``--topology`` takes them; None for the project's own."""
    runs: Path | None = None
    """Folder of records; None for the project's own."""
    config_file: str | None = None
    """Ini file of the project; None for the one that pytest finds."""
    stack: str | None = None
    """Stack of the servers, as ``--pdserve-stack`` takes it; None for the system's own."""
    until: datetime | None = None
    """When the session must have ended."""

    @property
    def argv(self) -> list[str]:
        """The command, as a list of arguments."""
        argv = [sys.executable, "-m", "pytest", *self.suites, "--system", self.system]
        argv += ["--rootdir", str(self.rootdir), "--pdserve-report", str(self.report)]
        if self.config_file is not None:
            argv += ["-c", self.config_file]
        if self.topology is not None:
            argv += ["--topology", self.topology]
        if self.runs is not None:
            argv += ["--pdserve-runs", str(self.runs)]
        if self.stack is not None:
            argv += ["--pdserve-stack", self.stack, "--pdserve-no-record"]
        if self.until is not None:
            argv += ["--pdserve-until", self.until.isoformat()]
        return argv


def run_session(
    asked: Asked,
    held: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    release_s: float = RELEASE_S,
) -> int:
    """Run pytest until it ends, and return its exit code; that of a signal is below 0.

    At the deadline it is told to end (SIGTERM), and killed where it does not release its nodes in
    *release_s* seconds.

    :param held: descriptor of the lock, which the session holds too: should this process be
        killed, nobody measures beside a session that still does.
    :raises LaunchError: if it cannot be started.
    """
    left_s = None
    if asked.until is not None:
        left_s = clock() + (asked.until - datetime.now(UTC)).total_seconds()
    try:
        # A group of its own: it is told to end once, by us, and not by Ctrl-C as well.
        process = subprocess.Popen(
            asked.argv, stdin=subprocess.DEVNULL, pass_fds=(held,), process_group=0
        )
    except OSError as error:
        raise LaunchError(f"pytest cannot be started: {error.strerror}") from error
    try:
        return process.wait(None if left_s is None else max(left_s - clock(), 0.0))
    except subprocess.TimeoutExpired:
        return _end(process, release_s)
    except BaseException:  # Ctrl-C or SIGTERM: nodes are released before we go
        _end(process, release_s)
        raise


def _end(process: subprocess.Popen[bytes], release_s: float) -> int:
    """End pytest so that it releases what it holds; kill it if it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(release_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def absolute(suites: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Return what names tests, with its path made absolute."""
    return tuple(os.path.join(folder, suite) for suite in suites)
