"""Topologies: groups of instances with roles, and the grammar of their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.roles import AGGREGATED
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import Role

ARTICLE_TOPOLOGIES = ("dp", "route2", "route4", "1p3d", "2p2d")
"""Topologies of the article, in its order; ``--topology all`` selects them."""

_FORMS = "'dp', 'route<R>', '<x>p<y>d' or '<R>x<x>p<y>d', each with an optional '-tp8' or '-tp4x8'"
_NUMBER = "[0-9]{1,6}"
_TP = rf"(?:-tp(?P<tp>{_NUMBER}(?:x{_NUMBER})*))?"
_AGGREGATED_NAME = re.compile(rf"(?:(?P<dp>dp)|route(?P<groups>{_NUMBER})){_TP}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The instances of one role in a group."""

    role: str
    """Name of the role, one of :data:`ROLES`."""
    count: int
    """Number of instances, each on its own node; an aggregated group counts as one."""
    tp: int | None = None
    """GPUs per engine; None for the system's default."""


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Nodes and GPUs that a topology uses."""

    nodes: int
    """Number of nodes; on a local system, slots of this machine."""
    gpus: int
    """Number of GPUs; a CPU slot counts as one."""

    def __str__(self) -> str:
        counts = {"node": self.nodes, "GPU": self.gpus}
        return ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in counts.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Identical groups of instances, aggregated or with prefill and decode roles."""

    groups: int
    """Number of groups; a router spreads requests over them."""
    parts: tuple[Part, ...]
    """Roles of a group, in the order of :data:`ROLES`."""

    @property
    def disaggregated(self) -> bool:
        """True if prefill and decode run on separate instances."""
        return self.parts[0].role != AGGREGATED

    @property
    def per_group(self) -> int:
        """Number of instances in a group."""
        return sum(part.count for part in self.parts)

    @property
    def id(self) -> str:
        """Canonical name, used in records and baselines."""
        if self.disaggregated:
            prefix = f"{self.groups}x" if self.groups > 1 else ""
            shape = prefix + "".join(f"{p.count}{ROLES[p.role].letter}" for p in self.parts)
        else:
            shape = "dp" if self.groups == 1 else f"route{self.groups}"
        sizes = [part.tp for part in self.parts]
        if None in sizes:
            return shape
        shown = sizes[:1] if len(set(sizes)) == 1 else sizes
        return f"{shape}-tp{'x'.join(map(str, shown))}"

    @classmethod
    def parse(cls, text: str) -> Topology:
        """Parse the name of a topology.

        :raises ConfigError: if *text* is malformed, or not the canonical name.
        """
        roles = [role for role in ROLES.values() if role.letter]
        apart = re.compile(
            rf"(?:(?P<groups>{_NUMBER})x)?"
            + "".join(rf"(?:(?P<{r.name}>{_NUMBER}){r.letter})?" for r in roles)
            + _TP
        )
        together, split = _AGGREGATED_NAME.fullmatch(text), apart.fullmatch(text)
        match = together or split
        if match is None or not (together or any(match[role.name] for role in roles)):
            raise ConfigError(f"topology {text!r:.80} is not of the form {_FORMS}")
        given = [] if together else [role for role in roles if match[role.name] is not None]
        counts = [(AGGREGATED, 1)] if together else [(r.name, int(match[r.name])) for r in given]
        if split and not together:
            _check_roles(text, given, dict(counts))
        topology = cls(
            groups=int(match["groups"] or 1),
            parts=tuple(
                Part(role=name, count=count, tp=tp)
                for (name, count), tp in zip(counts, _sizes(text, match, counts), strict=True)
            ),
        )
        if 0 in (topology.groups, *(part.tp for part in topology.parts)):
            raise ConfigError(
                f"topology {text!r} counts something as 0; each number must be at least 1"
            )
        if topology.id != text:
            raise ConfigError(
                f"topology {text!r} is the same as {topology.id!r}; write {topology.id!r}"
            )
        return topology


def _check_roles(text: str, given: Sequence[Role], counts: dict[str, int]) -> None:
    needed = {name for role in given for name in role.needs}
    if 0 in counts.values() or not needed <= counts.keys():
        names = [*counts, *sorted(needed - counts.keys())]
        has = " and ".join(f"{counts.get(name, 0)} {name}" for name in names)
        raise ConfigError(
            f"topology {text!r} has {has} instances; "
            "each must be at least 1 (instances that do both are 'dp' or 'route<R>')"
        )


def _sizes(
    text: str, match: re.Match[str], counts: Sequence[tuple[str, int]]
) -> Sequence[int | None]:
    """Return the tensor-parallel size of each part; a single size applies to all."""
    if not match["tp"]:
        return [None] * len(counts)
    sizes = [int(size) for size in match["tp"].split("x")]
    if len(sizes) == 1:
        return sizes * len(counts)
    if len(counts) == 1:
        raise ConfigError(
            f"topology {text!r} gives {len(sizes)} tensor-parallel sizes, but its instances do "
            "prefill and decode alike; write one, as in 'dp-tp4'"
        )
    if len(sizes) != len(counts):
        raise ConfigError(
            f"topology {text!r} gives {len(sizes)} tensor-parallel sizes for {len(counts)} roles; "
            "write one for all, or one for each"
        )
    return sizes


def parse_topologies(text: str) -> tuple[Topology, ...]:
    """Parse ``ID[,ID…]`` or ``all``.

    :raises ConfigError: if an id is invalid or occurs twice.
    """
    names = ARTICLE_TOPOLOGIES if text == "all" else tuple(part.strip() for part in text.split(","))
    topologies = tuple(Topology.parse(name) for name in names)
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(f"topology {name!r:.80} occurs {count} times in {text!r:.80}")
    return topologies
