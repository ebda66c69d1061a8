"""Which port every server of a placement listens on."""

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
"""Tells whether a port of a node is free, and keeps it: ``(node, port) -> bool``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancePorts:
    """Ports of one instance; None where it has none."""

    http: int | None = None
    """HTTP, of an instance that answers requests."""
    side_channel: int | None = None
    """First of ``dp_local x tp`` NIXL side-channel ports."""
    rpc: int | None = None
    """Data-parallel RPC of its group, listened on by the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports of a placement."""

    instances: Mapping[str, InstancePorts]
    """By instance name."""
    router: int | None
    """HTTP of the router."""
    router_metrics: int | None
    """Prometheus endpoint of the router."""


class PortBook:
    """Hands out ports of one scheme, each at most once."""

    def __init__(self, scheme: PortScheme, claim: Claim) -> None:
        self._scheme = scheme
        self._claim = claim
        self._spare: set[tuple[str, int]] = set()
        """Claimed while looking for a run of free ports, and not handed out yet."""

    def take(self, node: str, kind: str, offset: int, *, width: int = 1) -> int:
        """The first run of *width* free ports at or after ``scheme.<kind> + offset``.

        :raises PlacementError: if the scheme's span holds none.
        """
        base: int = getattr(self._scheme, kind)
        last = min(base + self._scheme.span, 65536)
        first = base + offset
        while first + width <= last:
            run = range(first, first + width)
            taken = [port for port in run if not self._keeps(node, port)]
            if not taken:
                self._spare -= {(node, port) for port in run}
                return first
            first = taken[-1] + 1
        raise PlacementError(
            f"no {width} free ports in {base}-{last - 1} ({kind}) on {node}; "
            f"free some, or raise ports.span = {self._scheme.span} in the system file"
        )

    def _keeps(self, node: str, port: int) -> bool:
        if (node, port) not in self._spare and self._claim(node, port):
            self._spare.add((node, port))
        return (node, port) in self._spare


def assign_ports(placement: Placement, scheme: PortScheme, claim: Claim) -> Ports:
    """Assign ports as the article's launcher does, moving up where one is taken.

    Aggregated groups at ``http + g``, disaggregated instances at ``http`` + position, the router
    at ``http + groups``; RPC at ``rpc + g``.

    :param claim: asked once for every port that is handed out.
    :raises PlacementError: if a range is exhausted.
    """
    book = PortBook(scheme, claim)
    rpc = {
        head.group: book.take(head.node, "rpc", head.group)
        for head in placement.endpoints
        if head.spans_nodes
    }
    instances = {
        instance.name: _instance_ports(book, instance, position, rpc.get(instance.group))
        for position, instance in enumerate(placement.instances)
    }
    router = metrics = None
    if placement.routed:
        router = book.take(placement.head, "http", placement.topology.groups)
        metrics = book.take(placement.head, "http", placement.topology.groups + 1)
    return Ports(instances=instances, router=router, router_metrics=metrics)


def _instance_ports(
    book: PortBook, instance: Instance, position: int, rpc: int | None
) -> InstancePorts:
    if instance.headless:
        return InstancePorts(rpc=rpc)
    alone = instance.role.name == AGGREGATED
    http = book.take(instance.node, "http", instance.group if alone else position)
    side_channel = None
    if instance.role.kv_role is not None:
        width = instance.dp_local * instance.tp
        side_channel = book.take(instance.node, "side_channel", 0, width=width)
    return InstancePorts(http=http, side_channel=side_channel, rpc=rpc)


def unclaimed(*, one_machine: bool = False) -> Claim:
    """A claim that only knows its own ports: for plans that touch nothing.

    :param one_machine: whether all nodes are slots of one machine, and share its ports.
    """
    taken: set[tuple[str, int]] = set()

    def claim(node: str, port: int) -> bool:
        key = ("" if one_machine else node, port)
        fresh = key not in taken
        taken.add(key)
        return fresh

    return claim
