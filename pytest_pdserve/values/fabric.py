"""RDMA network interfaces of nodes, such as EFA, and their counters during a load."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

_TROUBLE = (
    *("drop", "retrans", "rnr", "timeout", "out_of_seq", "seq_err"),
    *("impaired", "unresponsive"),  # EFA's counters about the remote end
)
"""Parts of names of counters that increase if packets are lost or sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricState:
    """Interfaces of a node at one time."""

    node: str
    """Name of the node; for slots of one machine, of the machine."""
    provider: str = ""
    """First libfabric provider of ``fi_info``; empty without any."""
    fi_info: tuple[str, ...] = ()
    """Endpoints of ``fi_info``, a line each: provider, fabric, domain, version, type."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """Count by interface, port and name, e.g. ``rdmap0s6/1/rx_drops``, from
    ``/sys/class/infiniband/*/ports/*/hw_counters``."""

    @property
    def interfaces(self) -> int:
        """Number of interfaces with counters."""
        return len({name.partition("/")[0] for name in self.counters})


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricRun:
    """Interfaces of a node during a load."""

    node: str
    """Name of the node; for slots of one machine, of the machine."""
    interfaces: int
    """Number of interfaces with counters."""
    provider: str = ""
    """First libfabric provider of ``fi_info``; empty without any."""
    fi_info: tuple[str, ...] = ()
    """Endpoints of ``fi_info``, a line each: provider, fabric, domain, version, type."""
    counted: Mapping[str, float] = field(default_factory=dict)
    """Increase by counter during the load, summed over all interfaces."""
    troubles: Mapping[str, float] = field(default_factory=dict)
    """Increase by interface, port and counter, for drops, retransmissions and the like."""


def fabric_state(node: str, counters: Mapping[str, float], endpoints: Sequence[str]) -> FabricState:
    """Return the state of the interfaces of *node*.

    :param endpoints: endpoints of ``fi_info``, a line each.
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
    """Return the counts of each node's interfaces between two states."""
    earlier = {each.node: each for each in before}
    return tuple(fabric_run(earlier[each.node], each) for each in after if each.node in earlier)


def fabric_run(before: FabricState, after: FabricState) -> FabricRun:
    """Return the counts of a node's interfaces between two states."""
    increases = {
        name: count - before.counters[name]
        for name, count in after.counters.items()
        if count > before.counters.get(name, count)
    }
    counted: dict[str, float] = {}
    for name, count in increases.items():
        kind = name.rpartition("/")[2]
        counted[kind] = counted.get(kind, 0.0) + count
    return FabricRun(
        node=after.node,
        interfaces=after.interfaces,
        provider=after.provider,
        fi_info=after.fi_info,
        counted=counted,
        troubles={name: count for name, count in increases.items() if is_trouble(name)},
    )


def is_trouble(name: str) -> bool:
    """Return whether a counter increases if packets are lost or sent again."""
    kind = name.rpartition("/")[2]
    return any(part in kind for part in _TROUBLE)
