"""Run the session of a night: pytest in its own process, which is ended at its deadline."""

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
"""Seconds after SIGTERM in which a session must stop its servers and release its nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCommand:
    """The command that runs the session of a night."""

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
    command: SessionCommand,
    lock: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    release_s: float = RELEASE_S,
) -> int:
    """Run pytest until it ends; return its exit code, which is negative for a signal.

    At the deadline it gets SIGTERM, and SIGKILL if it does not release its nodes in *release_s*
    seconds.

    :param lock: descriptor of the locked file, which the session inherits: if this process is
        killed, no other night starts while the session is still measuring.
    :raises LaunchError: if it cannot be started.
    """
    left_s = None
    if command.until is not None:
        left_s = clock() + (command.until - datetime.now(UTC)).total_seconds()
    try:
        # Its own group: it gets one signal, from this process, and none from Ctrl-C.
        process = subprocess.Popen(
            command.argv, stdin=subprocess.DEVNULL, pass_fds=(lock,), process_group=0
        )
    except OSError as error:
        raise LaunchError(f"pytest cannot be started: {error.strerror}") from error
    try:
        return process.wait(None if left_s is None else max(left_s - clock(), 0.0))
    except subprocess.TimeoutExpired:
        return _end(process, release_s)
    except BaseException:  # Ctrl-C or SIGTERM: release the nodes first
        _end(process, release_s)
        raise


def _end(process: subprocess.Popen[bytes], release_s: float) -> int:
    """End pytest so that it releases its nodes; kill it if it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(release_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def absolute(suites: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Return *suites* with absolute paths."""
    return tuple(os.path.join(folder, suite) for suite in suites)
