"""Topologies: how prefill and decode are spread over nodes, and the grammar of their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from pytest_pdserve.values.errors import ConfigError

ARTICLE_TOPOLOGIES = ("dp", "route2", "route4", "1p3d", "2p2d")
"""The five that the article measured, in its order; what ``--topology all`` means."""

_FORMS = "'dp', 'route<R>', '<x>p<y>d' or '<R>x<x>p<y>d', each with an optional '-tp8' or '-tp4x8'"
_GRAMMAR = re.compile(
    r"(?:(?P<dp>dp)|route(?P<routes>N)|(?:(?P<groups>N)x)?(?P<prefill>N)p(?P<decode>N)d)"
    r"(?:-tp(?P<tp>N)(?:x(?P<tp_decode>N))?)?".replace("N", "[0-9]{1,6}")
)


class Role(StrEnum):
    """What an instance does for a request."""

    AGGREGATED = "aggregated"
    PREFILL = "prefill"
    DECODE = "decode"

    @property
    def kv_role(self) -> str | None:
        """The role's name in vLLM's ``--kv-transfer-config``; None where no KV cache moves."""
        return {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}.get(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Identical groups of instances, all aggregated or split into prefill and decode."""

    groups: int
    """Identical groups; a router spreads requests over them."""
    prefill: int
    """Prefill instances of a group, one node each; 0 means aggregated."""
    decode: int
    """Decode instances of a group, one node each; 0 means aggregated."""
    tp_prefill: int | None = None
    """GPUs per prefill (or aggregated) engine; None means the system's own choice."""
    tp_decode: int | None = None
    """GPUs per decode engine; None means the system's own choice."""

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode run on separate instances."""
        return self.prefill > 0

    @property
    def id(self) -> str:
        """The one spelling under which records and baselines know the topology."""
        if self.disaggregated:
            prefix = f"{self.groups}x" if self.groups > 1 else ""
            shape = f"{prefix}{self.prefill}p{self.decode}d"
        else:
            shape = "dp" if self.groups == 1 else f"route{self.groups}"
        if self.tp_prefill is None:
            return shape
        if self.tp_prefill == self.tp_decode:
            return f"{shape}-tp{self.tp_prefill}"
        return f"{shape}-tp{self.tp_prefill}x{self.tp_decode}"

    @classmethod
    def parse(cls, text: str) -> Topology:
        """Read a topology's name.

        :raises ConfigError: if *text* is not of the grammar, or is a second spelling of a name.
        """
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ConfigError(f"topology {text!r} is not of the form {_FORMS}")
        routes, groups = match["routes"], match["groups"]
        prefill, decode = int(match["prefill"] or 0), int(match["decode"] or 0)
        if match["prefill"] is not None and 0 in (prefill, decode):
            raise ConfigError(
                f"topology {text!r} has {prefill} prefill and {decode} decode instances; "
                "each must be at least 1 (instances that do both are 'dp' or 'route<R>')"
            )
        if match["tp_decode"] is not None and not prefill:
            raise ConfigError(
                f"topology {text!r} gives two tensor-parallel sizes, but its instances do prefill "
                "and decode alike; write one, as in 'dp-tp4'"
            )
        tp = int(match["tp"]) if match["tp"] else None
        topology = cls(
            groups=int(routes or groups or 1),
            prefill=prefill,
            decode=decode,
            tp_prefill=tp,
            tp_decode=int(match["tp_decode"]) if match["tp_decode"] else tp,
        )
        if 0 in (topology.groups, topology.tp_prefill, topology.tp_decode):
            raise ConfigError(
                f"topology {text!r} counts something as 0; each number must be at least 1"
            )
        if topology.id != text:
            raise ConfigError(
                f"topology {text!r} is the same as {topology.id!r}; write {topology.id!r}"
            )
        return topology


def parse_topologies(text: str) -> tuple[Topology, ...]:
    """Read ``ID[,ID…]`` or ``all``.

    :raises ConfigError: if an id is unknown or stands twice.
    """
    names = ARTICLE_TOPOLOGIES if text == "all" else tuple(part.strip() for part in text.split(","))
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"topology {name!r} stands {names.count(name)} times in {text!r}")
    return tuple(Topology.parse(name) for name in names)
