"""The states of nodes as ``sinfo`` reports them."""

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
"""Characters that Slurm appends to a node's state, and their meaning."""
_LOST = frozenset("*%")
"""Marks of nodes on which a job cannot continue."""
_NOT_READY = frozenset("*~#!%@^")
_BAD = re.compile(
    r"(down|drain|drng|fail|error|no_respond|inval|power(ing|ed)_down|pow_dn|reboot|maint)", re.I
)
_STARTING = re.compile(r"(powering_up|pow_up|boot|unk)", re.I)
_STATE = re.compile(rf"(?P<base>[A-Za-z_+]+)(?P<marks>[{re.escape(''.join(MARKS))}]*)")
_NO_REASON = frozenset({"", "none", "(null)"})
_SHOWN = 8
"""Maximum number of names in a text; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """The state of a node, as ``sinfo`` reports it."""

    name: str
    state: str
    """State without marks, e.g. ``down``, long or short."""
    marks: str
    """Characters after the state, see :data:`MARKS`."""
    reason: str
    """Reason that Slurm or an administrator has set; empty if none."""

    @property
    def bad(self) -> bool:
        """True if the node is down, drained or does not respond."""
        return bool(_BAD.match(self.state) or _LOST & set(self.marks))

    @property
    def ready(self) -> bool:
        """True if a job on this node could start now."""
        return not (self.bad or _STARTING.match(self.state) or _NOT_READY & set(self.marks))

    @property
    def words(self) -> str:
        """State and reason: ``down, does not respond: power cut``."""
        state = ", ".join([self.state.lower(), *(MARKS[mark] for mark in self.marks)])
        return f"{state}: {self.reason}" if self.reason else state


def nodes_argv(nodes: Sequence[str], partition: str = "") -> list[str]:
    """Return the command that prints the states of nodes, or of a whole partition.

    :param nodes: names or host lists.
    """
    which = f"--partition={partition}" if partition else f"--nodes={','.join(nodes)}"
    return ["sinfo", "--noheader", "--Node", which, "--format=%N|%T|%E"]


def parse_nodes(text: str) -> tuple[NodeState, ...]:
    """Parse the output of :func:`nodes_argv`, which has one line per node and partition."""
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
    """Return nodes with their states as one clause, grouped by state.

    ``pd1, pd2 (down, does not respond: power cut), pd5 (drained)``
    """
    alike: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        alike.setdefault(node.words, []).append(node.name)
    return ", ".join(f"{_names(names)} ({words})" for words, names in alike.items())


def _names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
