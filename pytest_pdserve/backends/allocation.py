"""Protocols for the nodes and processes of a session, and helpers for process logs."""

from __future__ import annotations

import re
import shutil
import signal
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import Protocol

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.host import Host
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.fabric import FabricState
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.record import NodeLoad
from pytest_pdserve.values.root_cause import RootCause
from pytest_pdserve.values.root_cause import find_root_cause


class WatchedGpus(Protocol):
    """GPUs that are sampled during a load."""

    @property
    def runs(self) -> tuple[GpuRun, ...]:
        """One per GPU, once the load is over; empty if none could be read."""


Progress = Callable[[str], None]
"""Reports progress to the user, one line per call."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FULL_KIB = 1024
"""Below this much free space, messages report that the disk is full."""
_READ_BYTES = 8 * 2**20
"""Bytes read from the end of a log: earlier lines do not explain why a process failed."""
_CHUNK_BYTES = 2**20


class Process(Protocol):
    """One running command."""

    @property
    def command(self) -> Command:
        """Command that the process runs."""

    @property
    def log(self) -> Path:
        """File with its standard output and standard error."""

    @property
    def pid(self) -> int | None:
        """Process id on its node; None if unknown."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""

    def cpu_samples(self) -> Sequence[tuple[float, float]]:
        """Return all samples so far, each (time on the node's clock, CPU time), seconds.

        A call may take a new sample.
        """

    def watch(self) -> None:
        """Restart the measurement of the node's load, if the command is watched."""

    def node_load(self) -> NodeLoad | None:
        """Return the load of the node since :meth:`watch` or the start, until now or the end.

        None if the command is not watched.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedInstance:
    """An instance that already runs and whose counters can be read."""

    role: str
    """One of :data:`~.roles.ROLES`."""
    url: str
    """Base URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Servers that already run, reached at one URL."""

    url: str
    """Base URL."""
    api_key: str = field(repr=False)
    """Empty if the endpoint needs none."""
    model: str | None = None
    """Model name to send in requests; None reads it from the endpoint."""
    instances: tuple[NamedInstance, ...] = ()
    """Instances behind the endpoint, if the user named them."""


class Allocation(Protocol):
    """Nodes that the session holds until :meth:`release`."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Servers that already run; None if the session starts them."""

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The nodes."""

    @property
    def containment(self) -> Containment:
        """Wraps commands so that they run in containers."""

    @property
    def client_node(self) -> str:
        """Node of the benchmark client: a separate one, or the head node."""

    def claim(self, node: str, port: int) -> bool:
        """Reserve *port* of *node* for this session; return False if it is taken."""

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[Process, ...]:
        """Start *commands* on their nodes, all at once where the cluster can.

        :param logs: one file per command.
        :param secrets: values of the variables that commands name as secrets.
        :returns: one process per command; if one cannot be started, none is left.
        :raises PortTakenError: if another process uses one of their ports; from then on
            :meth:`claim` returns False for it.
        :raises LaunchError: if one cannot be started.
        """

    def stop(self, processes: Sequence[Process]) -> None:
        """End *processes* and all their descendants, together.

        :raises LaunchError: if one cannot be ended.
        """

    def check(self, *, fresh: bool = False) -> None:
        """Check that the nodes and the allocation are still available.

        :param fresh: check now, instead of using the result of the last few seconds.
        :raises AllocationError: naming what is lost.
        """

    def find_versions(self) -> Mapping[str, str]:
        """Return the versions installed where servers run; unknown ones are absent.

        :raises LaunchError: if no node can report them.
        """

    def describe_nodes(self) -> Mapping[str, str]:
        """Return the hardware that decides how fast the nodes serve."""

    def watching_gpus(self) -> AbstractContextManager[WatchedGpus]:
        """Watch the session's GPUs, if it has any, until the block is left."""

    def read_fabric(self) -> Sequence[FabricState]:
        """Return the counters of the RDMA interfaces, one state for each node that has any.

        Empty if no node has RDMA interfaces or can report their counters.
        """

    def diagnose(self) -> None:
        """Check whether the nodes caused a server failure; queries each node, so it takes a while.

        :raises AllocationError: naming the node and what it lost.
        """

    def describe(self) -> Mapping[str, Any]:
        """Return what records store about the nodes: the cluster kind and its own facts."""

    def release(self) -> None:
        """End all processes that still run and give the nodes back."""


def exit_text(code: int) -> str:
    """Return an exit code in words: ``exited with code 1``, ``was ended by signal 9 (SIGKILL)``."""
    if code >= 0:
        return f"exited with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    name = f" ({names[-code]})" if -code in names else ""
    return f"was ended by signal {-code}{name}"


def failure_text(path: Path) -> str:
    """Return why the process of a log failed: the root cause and its place, or the log's end."""
    cause = log_cause(path)
    if cause is None:
        return f"{path} ends:\n{log_tail(path)}"
    return f"the cause is {cause_text(cause, path)}{_disk_text(path)}"


def cause_text(cause: RootCause, path: Path) -> str:
    """Return a cause with its place: ``in line 62 of decode-0.log (Worker): ValueError: …``."""
    process = f" ({cause.process})" if cause.process else ""
    return f"in line {cause.line} of {path}{process}: {cause.text}"


def log_cause(path: Path, start: int = 0) -> RootCause | None:
    """Return the root cause of the last failure in a log, without secrets; None if not found.

    :param start: byte offset at which to start reading.
    """
    try:
        with path.open("rb") as file:
            first = max(start, log_size(path) - _READ_BYTES)
            skipped = [min(_CHUNK_BYTES, first - at) for at in range(0, first, _CHUNK_BYTES)]
            before = sum(file.read(size).count(b"\n") for size in skipped)
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    cause = find_root_cause(text.split("\n"))
    if cause is None:
        return None
    redacted = environment_redactor().text(cause.text)
    return replace(cause, text=redacted, line=before + cause.line)


def log_size(path: Path) -> int:
    """Return the size of a log, bytes; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def log_tail(path: Path, lines: int = 12) -> str:
    """Return the last lines of a log without colours and secrets, or why it cannot be read.

    If the log's disk is full, the text says so.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            last = deque(file, maxlen=lines)
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"
    plain = _ANSI.sub("", "".join(last)).rstrip() or "(empty)"
    return f"{environment_redactor().text(plain)}{_disk_text(path)}"


def _disk_text(path: Path) -> str:
    """Return a note that the log's disk is full; empty if it is not."""
    try:
        free_kib = shutil.disk_usage(path.parent).free // 1024
    except OSError:
        return ""
    return "" if free_kib >= _FULL_KIB else f"\n(the disk is full: {free_kib} KiB free)"
