"""Nodes and processes of a session: what can be asked of them, wherever they are."""

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

from pytest_pdserve.backends.hosts.gpu_watch import GpuWatch
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.host import Host
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.fabric import FabricState
from pytest_pdserve.values.record import NodeLoad
from pytest_pdserve.values.root_cause import RootCause
from pytest_pdserve.values.root_cause import find_root_cause

Progress = Callable[[str], None]
"""Told what is being waited for, in one line."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FULL_KIB = 1024
"""Less free space than this is worth a word."""
_READ_BYTES = 8 * 2**20
"""Of a log, from its end: what is earlier is not why its process has failed."""
_CHUNK_BYTES = 2**20


class Process(Protocol):
    """One running command."""

    @property
    def command(self) -> Command:
        """What runs."""

    @property
    def log(self) -> Path:
        """Where its standard output and error go."""

    @property
    def pid(self) -> int | None:
        """Id on its node, where it is known."""

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""

    def cpu_samples(self) -> Sequence[tuple[float, float]]:
        """Time on its node's clock and CPU time, seconds, of every look so far; may look again."""

    def watch(self) -> None:
        """Begin anew to watch how busy its node is, if it is watched."""

    def node_load(self) -> NodeLoad | None:
        """How busy its node was since :meth:`watch`, or its start, until now or until its end.

        None if it is not watched.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedInstance:
    """An instance that runs already and can be asked for its counters."""

    role: str
    """Name of its role, one of :data:`~.roles.ROLES`."""
    url: str
    """Base URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Servers that run already."""

    url: str
    """Base URL."""
    api_key: str = field(repr=False)
    """Key, or the empty string."""
    model: str | None = None
    """Name under which the model is asked for; None asks the endpoint."""
    instances: tuple[NamedInstance, ...] = ()
    """What serves behind it, as far as it was named."""


class Allocation(Protocol):
    """Nodes that the session holds until :meth:`release`."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Servers that run already; None where the session starts them."""

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The nodes."""

    @property
    def containment(self) -> Containment:
        """How commands are put into containers before they are started."""

    @property
    def client_node(self) -> str:
        """Node of the benchmark client: one of its own, or the head node."""

    def claim(self, node: str, port: int) -> bool:
        """Keep *port* of *node* for this session; False if it is taken."""

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[Process, ...]:
        """Start *commands* on their nodes, all at once where the cluster can.

        :param logs: one file per command.
        :param secrets: values of the variables that commands name as secrets.
        :returns: one process per command; if one cannot be started, none is left.
        :raises PortTakenError: if somebody else has one of their ports; :meth:`claim` then knows.
        :raises LaunchError: if one cannot be started.
        """

    def stop(self, processes: Sequence[Process]) -> None:
        """End *processes* and all their descendants, together.

        :raises LaunchError: if one cannot be ended.
        """

    def check(self, *, fresh: bool = False) -> None:
        """Make sure that nodes and allocation are still there.

        :param fresh: look now, instead of at what was seen in the last seconds.
        :raises AllocationError: naming what is lost.
        """

    def find_versions(self) -> Mapping[str, str]:
        """What is installed where servers run; what is unknown is absent.

        :raises LaunchError: if no node can tell.
        """

    def describe_nodes(self) -> Mapping[str, str]:
        """Hardware that decides how fast the nodes serve."""

    def watching_gpus(self) -> AbstractContextManager[GpuWatch]:
        """Watch the session's GPUs on this machine, if it has any, until the block is left."""

    def read_fabric(self) -> Sequence[FabricState]:
        """What the RDMA interfaces of the nodes have counted, a state for each node that has any.

        Empty where nodes have none, or cannot tell.
        """

    def diagnose(self) -> None:
        """See whether trouble with servers comes from nodes; asks them, so it may take a while.

        :raises AllocationError: naming the node and what it lost.
        """

    def describe(self) -> Mapping[str, Any]:
        """What records keep of the nodes: cluster kind, and what is particular to it."""

    def release(self) -> None:
        """Give everything back; what still runs is ended."""


def exit_text(code: int) -> str:
    """An exit code in words: ``exited with code 1`` or ``was ended by signal 9 (SIGKILL)``."""
    if code >= 0:
        return f"exited with code {code}"
    known = {number.value: number.name for number in signal.Signals}
    name = f" ({known[-code]})" if -code in known else ""
    return f"was ended by signal {-code}{name}"


def log_tells(path: Path) -> str:
    """Return why the process of a log failed: the root cause and its place, or the log's end."""
    cause = log_cause(path)
    if cause is None:
        return f"{path} ends:\n{log_tail(path)}"
    return f"the cause is {cause_text(cause, path)}{_disk_text(path)}"


def cause_text(cause: RootCause, path: Path) -> str:
    """Return a cause after its place: ``in line 62 of decode-0.log (Worker): ValueError: …``."""
    process = f" ({cause.process})" if cause.process else ""
    return f"in line {cause.line} of {path}{process}: {cause.text}"


def log_cause(path: Path, start: int = 0) -> RootCause | None:
    """Return the root cause of the last trouble in a log, without secrets; None if there is none.

    :param start: bytes that are passed over.
    """
    try:
        with path.open("rb") as file:
            first = max(start, log_size(path) - _READ_BYTES)
            passed = [min(_CHUNK_BYTES, first - at) for at in range(0, first, _CHUNK_BYTES)]
            before = sum(file.read(size).count(b"\n") for size in passed)
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    cause = find_root_cause(text.split("\n"))
    if cause is None:
        return None
    said = environment_redactor().text(cause.text)
    return replace(cause, text=said, line=before + cause.line)


def log_size(path: Path) -> int:
    """Return how long a log is, bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def log_tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log without colours and secrets, or why there are none.

    It also tells if the log's disk is full.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            last = deque(file, maxlen=lines)
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"
    plain = _ANSI.sub("", "".join(last)).rstrip() or "(empty)"
    return f"{environment_redactor().text(plain)}{_disk_text(path)}"


def _disk_text(path: Path) -> str:
    """Return that a log's disk is full, if it is."""
    try:
        free_kib = shutil.disk_usage(path.parent).free // 1024
    except OSError:
        return ""
    return "" if free_kib >= _FULL_KIB else f"\n(the disk is full: {free_kib} KiB free)"
