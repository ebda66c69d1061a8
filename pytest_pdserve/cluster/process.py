"""Processes of a session: what can be asked of one, wherever it runs."""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import Host

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

    def cpu_seconds(self) -> float | None:
        """CPU time used so far; None where it cannot be seen."""


class Allocation(Protocol):
    """Nodes that the session holds until :meth:`release`."""

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The nodes."""

    @property
    def kind(self) -> str:
        """Cluster kind, as in the system file."""

    def claim(self, node: str, port: int) -> bool:
        """Keep *port* of *node* for this session; False if it is taken."""

    def run(self, command: Command, *, log: Path, secrets: Mapping[str, str]) -> Process:
        """Start *command* on its node.

        :raises LaunchError: if it cannot be started.
        """

    def stop(self, processes: Sequence[Process]) -> None:
        """End *processes* and all their descendants, together.

        :raises LaunchError: if one cannot be ended.
        """

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
