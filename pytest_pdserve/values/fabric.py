"""Network interfaces of a node for RDMA, such as EFA, and what they counted while a load ran."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

_TROUBLE = (
    *("drop", "retrans", "rnr", "timeout", "out_of_seq", "seq_err"),
    *("impaired", "unresponsive"),  # what EFA says of the other end
)
"""Parts of the names of counters that rise when packets are lost or sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricState:
    """The interfaces of a node at one time."""

    node: str
    """Node, or machine of all slots."""
    provider: str = ""
    """Provider of libfabric that ``fi_info`` lists first; empty if it lists none."""
    fi_info: tuple[str, ...] = ()
    """What ``fi_info`` lists, a line for each endpoint: provider, fabric, domain, version, type."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """Count by interface, port and name, e.g. ``rdmap0s6/1/rx_drops``, from
    ``/sys/class/infiniband/*/ports/*/hw_counters``."""

    @property
    def interfaces(self) -> int:
        """Interfaces with counters."""
        return len({name.partition("/")[0] for name in self.counters})


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricRun:
    """The interfaces of a node while a load ran."""

    node: str
    """Node, or machine of all slots."""
    interfaces: int
    """Interfaces with counters."""
    provider: str = ""
    """Provider of libfabric that ``fi_info`` lists first; empty if it lists none."""
    fi_info: tuple[str, ...] = ()
    """What ``fi_info`` lists, a line for each endpoint: provider, fabric, domain, version, type."""
    counted: Mapping[str, float] = field(default_factory=dict)
    """By counter, over all interfaces: what rose from before the load to after it."""
    troubles: Mapping[str, float] = field(default_factory=dict)
    """By interface, port and counter: drops, retransmissions and the like that rose."""


def fabric_state(node: str, counters: Mapping[str, float], endpoints: Sequence[str]) -> FabricState:
    """Return the interfaces of *node*.

    :param endpoints: lines of ``fi_info``.
    """
    return FabricState(
        node=node,
        provider=endpoints[0].partition(" ")[0] if endpoints else "",
        fi_info=tuple(endpoints),
        counters=counters,
    )


def fabric_runs(
    before: Sequence[FabricState], after: Sequence[FabricState]
) -> tuple[FabricRun, ...]:
    """Return what the interfaces of each node counted between two times."""
    earlier = {each.node: each for each in before}
    return tuple(fabric_run(earlier[each.node], each) for each in after if each.node in earlier)


def fabric_run(before: FabricState, after: FabricState) -> FabricRun:
    """Return what a node's interfaces counted between two times."""
    rose = {
        name: count - before.counters[name]
        for name, count in after.counters.items()
        if count > before.counters.get(name, count)
    }
    counted: dict[str, float] = {}
    for name, count in rose.items():
        kind = name.rpartition("/")[2]
        counted[kind] = counted.get(kind, 0.0) + count
    return FabricRun(
        node=after.node,
        interfaces=after.interfaces,
        provider=after.provider,
        fi_info=after.fi_info,
        counted=counted,
        troubles={name: count for name, count in rose.items() if is_trouble(name)},
    )


def is_trouble(name: str) -> bool:
    """Tell whether a counter rises when packets are lost or sent again."""
    kind = name.rpartition("/")[2]
    return any(part in kind for part in _TROUBLE)
