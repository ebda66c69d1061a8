"""This machine as a cluster: a node is a slot with ports of its own, and cores if they suffice."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import psutil

from pytest_pdserve.cluster.facts import describe_drivers
from pytest_pdserve.cluster.facts import describe_hardware
from pytest_pdserve.cluster.groups import Groups
from pytest_pdserve.cluster.process import Process
from pytest_pdserve.cluster.runner import keep_port
from pytest_pdserve.cluster.versions import find_versions
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import planned_hosts
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import System


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
    samples: list[tuple[float, float]] = field(default_factory=list)
    """Time and CPU seconds, as often as it was looked at."""

    @property
    def pid(self) -> int:
        """Id of leader and group."""
        return self.popen.pid

    def poll(self) -> int | None:
        """Exit code of the leader; None while it runs."""
        return self.popen.poll()

    def cpu_samples(self) -> Sequence[tuple[float, float]]:
        """Look once more at the CPU time of the leader and its children."""
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(self.pid)
            family = [leader, *leader.children(recursive=True)]
            used = sum(sum(process.cpu_times()[:2]) for process in family)
            self.samples.append((time.monotonic(), used))
        return self.samples


class LocalAllocation:
    """Slots of this machine, held by a session."""

    kind = "local"

    def __init__(self, system: System) -> None:
        self.hosts = planned_hosts(system, os.cpu_count() or 1)
        self.client_node = self.hosts[0].name
        self._cpus = {host.name: host.cpus for host in self.hosts}
        self._reserved: list[contextlib.ExitStack] = []
        self._groups = Groups(system.limits.stop_s)

    def claim(self, node: str, port: int) -> bool:
        """Reserve *port*: bound, not listening, so servers that reuse addresses can have it."""
        kept = keep_port(port)
        if kept is not None:
            self._reserved.append(kept)
        return kept is not None

    def unclaim(self) -> None:
        """Give all reserved ports back."""
        while self._reserved:
            self._reserved.pop().close()

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[LocalProcess, ...]:
        """Start *commands*, each as a process group of its own with its output in its log."""
        started: list[LocalProcess] = []
        try:
            for command, log in zip(commands, logs, strict=True):
                started.append(self._start(command, log, secrets))
        except BaseException:
            self.stop(started)
            raise
        return tuple(started)

    def _start(self, command: Command, log: Path, secrets: Mapping[str, str]) -> LocalProcess:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        except OSError as error:
            raise LaunchError(f"{command.name} cannot be started: {error}") from error
        with output:
            popen = self._groups.start(
                command.name,
                command.argv,
                executable=find_program(command.argv[0]),
                env={
                    **os.environ,
                    **dict(command.env),
                    **{name: secrets[name] for name in command.secrets if name in secrets},
                },
                output=output,
            )
        if cpus := self._cpus.get(command.node):
            with contextlib.suppress(psutil.Error):
                psutil.Process(popen.pid).cpu_affinity(list(cpus))
        return LocalProcess(command=command, log=log, popen=popen)

    def stop(self, processes: Sequence[Process]) -> None:
        """End the groups of *processes* together: SIGTERM, then SIGKILL."""
        self._groups.stop(process.pid for process in processes if process.pid is not None)

    def check(self, *, fresh: bool = False) -> None:
        """Nothing to look at: a slot of this machine is lost with the machine only."""

    def find_versions(self) -> dict[str, str]:
        """What is installed beside this Python, and the kernel below."""
        return {**describe_drivers(), **find_versions()}

    def describe_nodes(self) -> dict[str, str]:
        """The hardware of this machine."""
        return describe_hardware()

    def diagnose(self) -> None:
        """Nothing to ask."""

    def describe(self) -> dict[str, object]:
        """What records keep of these nodes."""
        return {"kind": self.kind}

    def release(self) -> None:
        """End what still runs, give ports back, and let the leash go."""
        try:
            self._groups.close()
        finally:
            self.unclaim()


def find_program(name: str) -> str:
    """Find a command beside this Python first, so that an unactivated environment works.

    :raises LaunchError: if it is neither there nor on PATH.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise LaunchError(
            f"{name} is not installed beside {sys.executable} nor on PATH; run `make setup`, or "
            "install pytest-pdserve[serve]"
        )
    return found
