"""One ``srun`` that starts a command on each of several nodes, and the events of its runners."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

from msgspec import convert

from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.hosts.groups import Groups
from pytest_pdserve.plan.command import Command
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import PortTakenError
from pytest_pdserve.values.record import NodeLoad

LOST = 255
"""Exit code of a process whose runner ended without reporting one."""
_POLL_S = 0.02
_REFUSED = re.compile(r"Unable to (create step|confirm allocation|contact slurm controller)")
_PATIENCE_S = 2.0
"""Time for srun to end after its last task."""


@dataclass(slots=True, kw_only=True)
class SlurmProcess:
    """A command on a node of an allocation."""

    command: Command
    """With the container, if any."""
    log: Path
    """Output, on a file system that nodes share."""
    step: JobStep = field(repr=False)
    pid: int | None = None
    """Process id on its node; None until its runner has reported it."""
    code: int | None = None
    """Exit code, negative for a signal; None until its runner has reported it."""
    failed: str | None = None
    """Why it could not be started; None if it was."""
    taken: tuple[int, ...] = ()
    """Its ports that another process uses."""
    samples: list[tuple[float, float]] = field(default_factory=list)
    """(time on its node's clock, CPU time) of each sample, seconds."""
    load: NodeLoad | None = None
    """Load of its node, as last reported by its runner."""
    loads_requested: int = 0
    loads_received: int = 0

    @property
    def answered(self) -> bool:
        """True if its runner has reported a start or a failure."""
        return bool(self.pid or self.failed or self.taken or self.code is not None)

    @property
    def over(self) -> bool:
        """True if its runner will report nothing more."""
        return bool(self.failed or self.taken or self.code is not None)

    def poll(self) -> int | None:
        """Return the exit code; :data:`LOST` if its step ended without one; None while it runs."""
        if self.code is None and not self.step.listening:
            self.code = LOST
        return self.code

    def cpu_samples(self) -> Sequence[tuple[float, float]]:
        """Return the samples of CPU time that its runner has reported so far."""
        return tuple(self.samples)

    def watch(self) -> None:
        """Make its runner report the node's load, and restart its measurement."""
        self.loads_requested += 1
        self.step.send("watch", [self])

    def node_load(self) -> NodeLoad | None:
        """Return the load of its node; None if the command is not watched."""
        if not self.over and self.command.watched:
            self.watch()
            self.step.wait(
                lambda: self.over or self.loads_received >= self.loads_requested, _PATIENCE_S
            )
        return self.load

    def handle(self, event: Mapping[str, Any]) -> None:
        """Store an event of its runner."""
        match event["event"]:
            case "started":
                self.pid = event["pid"]
            case "ended":
                self.code = event["code"]
            case "failed":
                self.failed = event["message"]
            case "taken":
                self.taken = tuple(event["ports"])
            case "cpu":
                self.samples.append((event["at"], event["s"]))
            case "load":
                self.load = convert(event["load"], NodeLoad)
                self.loads_received += 1


class JobStep:
    """Commands that one step runs, one per node."""

    def __init__(
        self,
        commands: Sequence[Command],
        logs: Sequence[Path],
        *,
        argv: Sequence[str],
        env: Mapping[str, str],
        errors: Path,
        groups: Groups,
    ) -> None:
        self.processes = tuple(
            SlurmProcess(command=command, log=log, step=self)
            for command, log in zip(commands, logs, strict=True)
        )
        self._by_name = {process.command.name: process for process in self.processes}
        self._errors = errors
        self._groups = groups
        with errors.open("ab") as output:
            self._srun = groups.start(
                f"the step of {self._names(self.processes)}",
                argv,
                env=env,
                output=subprocess.PIPE,
                stdin=subprocess.PIPE,
                stderr=output,
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def listening(self) -> bool:
        """True if the step may still send events."""
        return self._listener.is_alive()

    @property
    def refused(self) -> bool:
        """True if Slurm did not create the step, so that nothing was started.

        A controller that was just restarted refuses steps for a few seconds.
        """
        if self.listening or any(process.answered for process in self.processes):
            return False
        return bool(_REFUSED.search(log_tail(self._errors)))

    def wait_started(self, limit_s: float) -> None:
        """Wait until every runner has reported that its command runs.

        :raises PortTakenError: if a port is in use.
        :raises LaunchError: naming nodes that did not start their command, and why.
        """
        self.wait(lambda: all(p.answered for p in self.processes), limit_s)
        for process in self.processes:
            if process.failed is not None:
                where = f"{process.command.name} cannot be started on {process.command.node}"
                raise LaunchError(f"{where}: {process.failed}")
        silent = [process for process in self.processes if not process.answered]
        if silent:
            nodes = ", ".join(process.command.node for process in silent)
            raise LaunchError(
                f"{self._names(silent)} did not start on {nodes} within {limit_s:.0f} s; "
                f"srun says ({self._errors}):\n{srun_errors(self._errors)}"
            )
        if any(process.taken for process in self.processes):
            taken = [f"{p.command.node}:{port}" for p in self.processes for port in p.taken]
            raise PortTakenError(f"ports {', '.join(taken)} are in use by another process")

    def stop(self, processes: Sequence[SlurmProcess], limit_s: float) -> None:
        """Make runners end *processes*; end the step if no others are left.

        :raises LaunchError: naming processes that did not end.
        """
        ending = [process for process in processes if not process.over]
        rest = [p for p in self.processes if not p.over and p not in ending]
        if self._srun.stdin is not None:
            with contextlib.suppress(OSError):
                if rest:
                    self.send("stop", ending)
                else:
                    self._srun.stdin.close()
        self.wait(lambda: all(p.over for p in ending), limit_s)
        left = [process for process in ending if process.poll() is None]
        if not rest:
            self.wait(lambda: False, _PATIENCE_S)  # srun ends with its last task
            self._groups.stop([self._srun.pid], grace_s=_PATIENCE_S)
            self._listener.join(_PATIENCE_S)
            if self._srun.stdout is not None and not self.listening:
                self._srun.stdout.close()
        if left:
            nodes = ", ".join(process.command.node for process in left)
            raise LaunchError(f"{self._names(left)} on {nodes} did not end in {limit_s:.0f} s")

    def send(self, request: str, processes: Sequence[SlurmProcess]) -> None:
        """Send a request, ``stop`` or ``watch``, to the runners of *processes*."""
        if self._srun.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                lines = "".join(f"{request} {p.command.name}\n" for p in processes)
                self._srun.stdin.write(lines.encode())
                self._srun.stdin.flush()

    def wait(self, done: Callable[[], bool], limit_s: float) -> None:
        """Wait until *done* returns true, no more events can come, or *limit_s* is over."""
        deadline = time.monotonic() + limit_s
        while self.listening and not done() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _listen(self) -> None:
        assert self._srun.stdout is not None
        for line in self._srun.stdout:
            with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
                event = json.loads(line)
                self._by_name[event["name"]].handle(event)

    @staticmethod
    def _names(processes: Sequence[SlurmProcess]) -> str:
        return ", ".join(process.command.name for process in processes)


def srun_errors(log: Path) -> str:
    """Return the end of srun's log, without a warning about CPU binding that does not matter."""
    lines = log_tail(log).splitlines()
    return "\n".join(line for line in lines if "lacks support for cpu binding" not in line)


def write_step(
    path: Path,
    commands: Sequence[Command],
    logs: Sequence[Path],
    *,
    shared: Mapping[str, Any],
) -> None:
    """Write the step file, from which runners read each node's command.

    :param shared: settings of all nodes.
    """
    items = {
        command.node: {
            "name": command.name,
            "argv": command.argv,
            "env": dict(command.env),
            "log": str(log),
            "ports": command.ports,
            "cleanup": command.cleanup,
            "pid_argv": command.pid_argv,
            "watch_cpu": command.watched,
        }
        for command, log in zip(commands, logs, strict=True)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"shared": dict(shared), "items": items}, indent=1))
