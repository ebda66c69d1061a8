"""What ``sinfo`` says of nodes: which are in trouble, and which are not ready yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

MARKS: Mapping[str, str] = MappingProxyType(
    {
        "*": "does not respond",
        "~": "powered down",
        "#": "powering up",
        "!": "to be powered down",
        "%": "powering down",
        "$": "reserved for maintenance",
        "@": "to be rebooted",
        "^": "being rebooted",
        "-": "planned for another job",
    }
)
"""What Slurm puts behind a node's state."""
_LOST = frozenset("*%")
"""Marks of nodes that no job can go on with."""
_NOT_READY = frozenset("*~#!%@^")
_BAD = re.compile(
    r"(down|drain|drng|fail|error|no_respond|inval|power(ing|ed)_down|pow_dn|reboot|maint)", re.I
)
_STARTING = re.compile(r"(powering_up|pow_up|boot|unk)", re.I)
_STATE = re.compile(rf"(?P<base>[A-Za-z_+]+)(?P<marks>[{re.escape(''.join(MARKS))}]*)")
_NO_REASON = frozenset({"", "none", "(null)"})
_SHOWN = 8
"""Names that a text shows before it counts the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What ``sinfo`` says of a node."""

    name: str
    """Its name."""
    state: str
    """Its state without marks, e.g. ``down``, long or short."""
    marks: str
    """Slurm's marks behind it, see :data:`MARKS`."""
    reason: str
    """What Slurm or a person wrote down for it; empty if nothing."""

    @property
    def bad(self) -> bool:
        """Whether it is down, drained or silent."""
        return bool(_BAD.match(self.state) or _LOST & set(self.marks))

    @property
    def ready(self) -> bool:
        """Whether a job that has it could start now."""
        return not (self.bad or _STARTING.match(self.state) or _NOT_READY & set(self.marks))

    @property
    def words(self) -> str:
        """Its state and Slurm's reason: ``down, does not respond: power cut``."""
        said = ", ".join([self.state.lower(), *(MARKS[mark] for mark in self.marks)])
        return f"{said}: {self.reason}" if self.reason else said


def nodes_argv(nodes: Sequence[str], partition: str = "") -> list[str]:
    """Asks for the states of nodes, given by names or as host lists, or of all of a partition."""
    which = f"--partition={partition}" if partition else f"--nodes={','.join(nodes)}"
    return ["sinfo", "--noheader", "--Node", which, "--format=%N|%T|%E"]


def parse_nodes(text: str) -> tuple[NodeState, ...]:
    """Read what :func:`nodes_argv` printed, a line for each node in each of its partitions."""
    found = {}
    for line in text.splitlines():
        name, state, reason = [*line.strip().split("|", 2), "", ""][:3]
        if name and (parts := _STATE.fullmatch(state.strip())):
            reason = reason.strip()
            found[name] = NodeState(
                name=name,
                state=parts["base"],
                marks=parts["marks"],
                reason="" if reason.lower() in _NO_REASON else reason,
            )
    return tuple(found.values())


def nodes_text(nodes: Sequence[NodeState]) -> str:
    """Return nodes with their states as one clause, those of one state together.

    ``pd1, pd2 (down, does not respond: power cut), pd5 (drained)``
    """
    alike: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        alike.setdefault(node.words, []).append(node.name)
    return ", ".join(f"{_names(names)} ({words})" for words, names in alike.items())


def _names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
