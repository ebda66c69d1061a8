"""Process groups of this machine that end with the session, even if it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.hosts import guard
from pytest_pdserve.backends.hosts.inventory import CommandKind
from pytest_pdserve.backends.hosts.inventory import InventoryFile
from pytest_pdserve.backends.hosts.runner import GONE_S
from pytest_pdserve.backends.hosts.runner import group_lives
from pytest_pdserve.values.errors import LaunchError

Stream = int | IO[bytes]


class Groups:
    """Process groups of this session, and the guard process that ends them if it is killed."""

    def __init__(self, stop_s: float, run_folder: Path, progress: Progress) -> None:
        self._stop_s = stop_s
        self._running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._inventory = InventoryFile(run_folder, stop_s, progress)
        self._guard = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, str(stop_s), str(self._inventory.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        self._inventory.guarded_by(self._guard.pid)

    @property
    def pids(self) -> frozenset[int]:
        """Leaders of the groups that are not stopped yet."""
        return frozenset(self._running)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: Stream,
        executable: str | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.STDOUT,
    ) -> subprocess.Popen[bytes]:
        """Start *argv* as its own process group.

        Not as its own session: the kernel schedules each session as a unit (autogroup), and
        ``sched_yield``, with which vLLM's workers wait for each other, yields only within one. In
        separate sessions, two cores spin and first NIXL transfers take 15 to 30 s.

        :raises LaunchError: if it cannot be started.
        """
        with signals_held():
            try:
                popen = subprocess.Popen(
                    argv,
                    executable=executable,
                    env=env,
                    stdout=output,
                    stdin=stdin,
                    stderr=stderr,
                    process_group=0,
                )
            except OSError as error:
                raise LaunchError(f"{name} cannot be started: {error}") from error
            self._running[popen.pid] = (name, popen)
            try:
                self._tell_guard(f"+{popen.pid}")
            finally:
                self._inventory.add_group(name, popen.pid, argv[0])
        return popen

    def stop(self, pids: Iterable[int], *, grace_s: float | None = None) -> None:
        """End groups together: SIGTERM, then SIGKILL.

        :param grace_s: time between the signals, seconds; None for ``limits.stop_s``.
        :raises LaunchError: if one cannot be ended.
        """
        groups = set(pids) & set(self._running)
        _signal_groups(groups, signal.SIGTERM)
        if not self._wait_gone(groups, self._stop_s if grace_s is None else grace_s):
            _signal_groups(groups, signal.SIGKILL)
            if not self._wait_gone(groups, GONE_S):
                names = ", ".join(self._running[group][0] for group in sorted(groups))
                raise LaunchError(f"{names} still run {GONE_S:g} s after SIGKILL")
        try:
            for group in groups:
                self._running.pop(group)[1].wait()
                self._tell_guard(f"-{group}")
        finally:
            if groups:
                self._inventory.remove_groups(groups)

    def on_loss(self, argv: Sequence[str], kind: CommandKind, name: str, *, id: str = "") -> None:
        """Register the command *argv* to run if this session is killed.

        A second call with the same *argv* sets the *id* of its job.

        :param name: server whose container it removes, or name of the job that it cancels.
        """
        try:
            self._tell_guard(f"+{json.dumps(list(argv))}")
        finally:
            self._inventory.add_command(argv, kind, name, id)

    def forget(self, argv: Sequence[str]) -> None:
        """Remove a command that :meth:`on_loss` has registered."""
        try:
            self._tell_guard(f"-{json.dumps(list(argv))}")
        finally:
            self._inventory.remove_command(argv)

    def holding(self, lock: Path) -> contextlib.AbstractContextManager[None]:
        """List a lock file in the inventory during the block, for ``pdserve clean``."""
        return self._inventory.holding(lock)

    def close(self) -> None:
        """End all groups and the guard, which first runs the commands still registered."""
        try:
            self.stop(self.pids)
        finally:
            self._inventory.close()
            if self._guard.stdin is not None:
                with contextlib.suppress(OSError):
                    self._guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(timeout=self._stop_s + GONE_S)

    def _tell_guard(self, line: str) -> None:
        if self._guard.stdin is not None and self._guard.stdin.closed:
            return  # after close(): the guard has run all registered commands
        if self._guard.stdin is None or self._guard.poll() is not None:
            raise LaunchError(
                f"the process that guards this session (pid {self._guard.pid}) is gone; without it "
                "a killed pytest would leave servers behind"
            )
        self._guard.stdin.write(line + "\n")
        self._guard.stdin.flush()

    def _wait_gone(self, groups: Iterable[int], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        for group in groups:
            while self._running[group][1].poll() is None or group_lives(group):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        return True


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the block ends, when a started process is registered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for held_number in held:
            signal.raise_signal(held_number)


def _signal_groups(groups: Iterable[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
