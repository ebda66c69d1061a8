"""Nodes and processes of a session: what can be asked of them, wherever they are."""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import Protocol

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.host import Host
from pytest_pdserve.values.record import NodeLoad

Progress = Callable[[str], None]
"""Told what is being waited for, in one line."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FULL_KIB = 1024
"""Less free space than this is worth a word."""


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

    def node_load(self) -> NodeLoad | None:
        """How busy its node was from its start until now, or until its end; None if not watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Servers that run already."""

    url: str
    """Base URL."""
    api_key: str = field(repr=False)
    """Key, or the empty string."""


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

    def diagnose(self) -> None:
        """See whether trouble with servers comes from nodes; asks them, so it may take a while.

        :raises AllocationError: naming the node and what it lost.
        """

    def describe(self) -> Mapping[str, Any]:
        """What records keep of the nodes: cluster kind, and what is particular to it."""

    def release(self) -> None:
        """Give everything back; what still runs is ended."""


def exit_text(code: int) -> str:
    """An exit code in words: ``exited with code 1`` or ``was ended by signal 9``."""
    return f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"


def log_tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log without colours, or why there are none; and if its disk is full."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            last = deque(file, maxlen=lines)
        free_kib = shutil.disk_usage(path.parent).free // 1024
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"
    tail = _ANSI.sub("", "".join(last)).rstrip() or "(empty)"
    return tail if free_kib >= _FULL_KIB else f"{tail}\n(the disk is full: {free_kib} KiB free)"
