"""Plan everything that is started for one topology: placement, ports and commands."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.plan.addresses import client_addresses
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.placement import Instance
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.ports import Claim
from pytest_pdserve.plan.ports import Ports
from pytest_pdserve.plan.ports import assign_ports
from pytest_pdserve.plan.router import endpoint_url
from pytest_pdserve.plan.router import router_command
from pytest_pdserve.plan.vllm import instance_commands
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Plan of one topology on the nodes of a system."""

    placement: Placement
    """Instances and their nodes."""
    ports: Ports
    """Ports of all servers."""
    instances: tuple[Command, ...]
    """Commands of the instances, in the placement's order."""
    router: Command | None
    """Command of the router; None without one."""
    addresses: Mapping[str, str]
    """Address at which clients reach the servers of a node, by node."""

    @property
    def url(self) -> str:
        """Base URL for clients: of the router, or of the only instance."""
        if self.router is not None:
            return f"http://{self.addresses[self.placement.head]}:{self.ports.router}"
        return self.url_of(self.placement.endpoints[0])

    @property
    def router_metrics_url(self) -> str | None:
        """Base URL of the router's counters; None without a router."""
        port = self.ports.router_metrics
        return None if port is None else f"http://{self.addresses[self.placement.head]}:{port}"

    def url_of(self, instance: Instance) -> str:
        """Return the base URL of an instance that answers requests."""
        return endpoint_url(instance, self.addresses, self.ports)

    @property
    def commands(self) -> tuple[Command, ...]:
        """All commands, in the order in which they are started."""
        return self.instances if self.router is None else (*self.instances, self.router)


def plan_launch(
    topology: Topology,
    system: System,
    *,
    hosts: Sequence[Host],
    claim: Claim,
    containment: Containment,
) -> Launch:
    """Place *topology* on *hosts*, assign ports and build the commands.

    :param claim: called once for every port.
    :param containment: wraps every command in its container.
    :raises PlacementError: if it does not fit.
    """
    named = {host.name: host for host in hosts}
    placement = place(
        topology,
        tuple(named),
        system.cluster.gpus_per_node,
        default_tp=system.tensor_parallel,
    )
    ports = assign_ports(placement, system.ports, claim)
    head, *others = instance_commands(placement, system, hosts=named, ports=ports)
    routed = tuple(port for port in (ports.router, ports.router_metrics) if port is not None)
    # The head instance reserves the router's ports too, since the router starts later.
    instances = (replace(head, ports=(*head.ports, *routed)), *others)
    router = router_command(placement, system, hosts=named, ports=ports)
    return Launch(
        placement=placement,
        ports=ports,
        instances=containment.wrap(instances),
        router=None if router is None else containment.wrap([router])[0],
        addresses=client_addresses(named, system),
    )
