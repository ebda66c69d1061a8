"""Assign ports to the servers of a placement."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.plan.placement import Instance
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.roles import AGGREGATED
from pytest_pdserve.values.system import PortScheme

Claim = Callable[[str, int], bool]
"""Reserves a port if it is free: ``(node, port) -> whether it is reserved``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancePorts:
    """Ports of one instance; None for those that it does not need."""

    http: int | None = None
    """Port of the HTTP server."""
    side_channel: int | None = None
    """First of ``dp_local x tp`` NIXL side-channel ports."""
    rpc: int | None = None
    """Data-parallel RPC port of its group, on which the head listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports of a placement."""

    instances: Mapping[str, InstancePorts]
    """Ports by instance name."""
    router: int | None
    """HTTP port of the router."""
    router_metrics: int | None
    """Prometheus port of the router."""


class PortAllocator:
    """Allocates ports of a scheme, each at most once."""

    def __init__(self, scheme: PortScheme, claim: Claim) -> None:
        self._scheme = scheme
        self._claim = claim
        self._spare: set[tuple[str, int]] = set()
        """Ports that were claimed while searching for consecutive ones, and are not allocated."""

    def take(self, node: str, kind: str, offset: int, *, width: int = 1) -> int:
        """Allocate the first *width* consecutive free ports from ``scheme.<kind> + offset`` on.

        :returns: the first of them.
        :raises PlacementError: if there are none in the scheme's span.
        """
        base: int = getattr(self._scheme, kind)
        last = min(base + self._scheme.span, 65536)
        first = base + offset
        while first + width <= last:
            run = range(first, first + width)
            taken = [port for port in run if not self._claimed(node, port)]
            if not taken:
                self._spare -= {(node, port) for port in run}
                return first
            first = taken[-1] + 1
        raise PlacementError(
            f"no {width} free ports in {base}-{last - 1} ({kind}) on {node}; "
            f"free some, or raise ports.span = {self._scheme.span} in the system file"
        )

    def _claimed(self, node: str, port: int) -> bool:
        if (node, port) not in self._spare and self._claim(node, port):
            self._spare.add((node, port))
        return (node, port) in self._spare


def assign_ports(placement: Placement, scheme: PortScheme, claim: Claim) -> Ports:
    """Assign ports as the article's launcher does, or the next free ones.

    Aggregated group g gets ``http + g`` and ``rpc + g``, a disaggregated instance ``http`` + its
    position, the router ``http + groups``.

    :param claim: called once for every port.
    :raises PlacementError: if a range is exhausted.
    """
    allocator = PortAllocator(scheme, claim)
    rpc = {
        head.group: allocator.take(head.node, "rpc", head.group)
        for head in placement.endpoints
        if head.spans_nodes
    }
    instances = {
        instance.name: _instance_ports(allocator, instance, position, rpc.get(instance.group))
        for position, instance in enumerate(placement.instances)
    }
    router = metrics = None
    if placement.routed:
        router = allocator.take(placement.head, "http", placement.topology.groups)
        metrics = allocator.take(placement.head, "http", placement.topology.groups + 1)
    return Ports(instances=instances, router=router, router_metrics=metrics)


def _instance_ports(
    allocator: PortAllocator, instance: Instance, position: int, rpc: int | None
) -> InstancePorts:
    if instance.headless:
        return InstancePorts(rpc=rpc)
    alone = instance.role.name == AGGREGATED
    http = allocator.take(instance.node, "http", instance.group if alone else position)
    side_channel = None
    if instance.role.kv_role is not None:
        width = instance.dp_local * instance.tp
        side_channel = allocator.take(instance.node, "side_channel", 0, width=width)
    return InstancePorts(http=http, side_channel=side_channel, rpc=rpc)


def in_memory_claim(*, one_machine: bool = False) -> Claim:
    """Return a claim that does not test ports but grants each once, for plans that start nothing.

    :param one_machine: whether all nodes are slots of one machine and share its ports.
    """
    taken: set[tuple[str, int]] = set()

    def claim(node: str, port: int) -> bool:
        key = ("" if one_machine else node, port)
        fresh = key not in taken
        taken.add(key)
        return fresh

    return claim
