"""Plan one start of instances for several topologies, if these differ only in roles."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.plan.addresses import client_addresses
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.ports import Claim
from pytest_pdserve.plan.ports import InstancePorts
from pytest_pdserve.plan.ports import PortAllocator
from pytest_pdserve.plan.ports import Ports
from pytest_pdserve.plan.ports import assign_ports
from pytest_pdserve.plan.router import router_command
from pytest_pdserve.plan.vllm import instance_commands
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.roles import Role
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

SHARED = Role(name="shared", kv_role="kv_both")
"""Role of a shared instance: it prefills or decodes, according to the router in front."""


def sharing_groups(
    topologies: Sequence[Topology], system: System
) -> Mapping[str, tuple[Topology, ...]]:
    """Return the group of topologies that one start of instances can serve, by topology id.

    Their instances have the same sizes on the same nodes, with a node per instance. There are no
    groups if the system has different arguments per role.

    :returns: groups of at least two; other topologies are absent.
    """
    if system.model.roles or system.kv_transfer.roles:
        return {}
    alike: dict[tuple[object, ...], list[Topology]] = {}
    for topology in dict.fromkeys(topologies):
        try:
            placement = _placed(topology, system, _names(system))
        except PlacementError:
            continue
        if not any(each.headless or each.spans_nodes for each in placement.instances):
            key = tuple((each.node, each.tp, each.dp_local) for each in placement.instances)
            alike.setdefault(key, []).append(topology)
    groups = [tuple(group) for group in alike.values() if len(group) > 1]
    return {topology.id: group for group in groups for topology in group}


def _names(system: System) -> tuple[str, ...]:
    return tuple(f"node{number}" for number in range(system.cluster.nodes))


def _placed(topology: Topology, system: System, nodes: tuple[str, ...]) -> Placement:
    cluster = system.cluster
    return place(topology, nodes, cluster.gpus_per_node, default_tp=system.tensor_parallel)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLaunch:
    """Plan of instances that several topologies share, with a router for each topology."""

    engines: Placement
    """Placement of the instances, named ``shared[0]``, ``shared[1]``, …"""
    instances: tuple[Command, ...]
    """Commands of the instances, in the placement's order."""
    launches: Mapping[str, Launch]
    """Launch of each topology by id, with the shared instances under its own names."""


def plan_shared(
    topologies: Sequence[Topology],
    system: System,
    *,
    hosts: Sequence[Host],
    claim: Claim,
    containment: Containment,
) -> SharedLaunch:
    """Plan one start of instances for *topologies*, a group of :func:`sharing_groups`.

    :param claim: called once for every port.
    :raises PlacementError: if they do not fit.
    """
    named = {host.name: host for host in hosts}
    placements = [_placed(topology, system, tuple(named)) for topology in topologies]
    engines = _shared_by(placements[0])
    ports = assign_ports(engines, system.ports, claim)
    allocator = PortAllocator(system.ports, claim)
    by_node = {each.node: ports.instances[each.name] for each in engines.instances}
    launches = {}
    for placement in placements:
        own = _own_ports(placement, allocator, by_node)
        router = router_command(placement, system, hosts=named, ports=own)
        launches[placement.topology.id] = Launch(
            placement=placement,
            ports=own,
            instances=(),
            router=None if router is None else containment.wrap([router])[0],
            addresses=client_addresses(named, system),
        )
    head, *others = instance_commands(engines, system, hosts=named, ports=ports)
    # The head instance reserves the ports of all routers too, since these start later.
    pairs = [(each.ports.router, each.ports.router_metrics) for each in launches.values()]
    kept = (*head.ports, *(port for pair in pairs for port in pair if port is not None))
    return SharedLaunch(
        engines=engines,
        instances=containment.wrap((replace(head, ports=kept), *others)),
        launches=launches,
    )


def _shared_by(placement: Placement) -> Placement:
    """Return *placement* with its instances renamed to shared ones."""
    return replace(
        placement,
        instances=tuple(
            replace(each, name=f"shared[{number}]", role=SHARED, group=number)
            for number, each in enumerate(placement.instances)
        ),
    )


def _own_ports(
    placement: Placement, allocator: PortAllocator, by_node: Mapping[str, InstancePorts]
) -> Ports:
    """Return the ports of a topology: of the shared instances, and of its own router."""
    offset = len(placement.instances)
    return Ports(
        instances={each.name: by_node[each.node] for each in placement.instances},
        router=allocator.take(placement.head, "http", offset),
        router_metrics=allocator.take(placement.head, "http", offset),
    )
