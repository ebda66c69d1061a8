"""Everything that will be started for one topology: placement, ports and commands together."""

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
    """What one topology needs on the nodes of a system."""

    placement: Placement
    """Instances on nodes."""
    ports: Ports
    """Ports of all servers."""
    instances: tuple[Command, ...]
    """Commands of the instances, in the placement's order."""
    router: Command | None
    """Command of the router, where there is one."""
    addresses: Mapping[str, str]
    """By node: where clients find its servers."""

    @property
    def url(self) -> str:
        """Base URL that clients ask: the router's, or that of the one instance."""
        if self.router is not None:
            return f"http://{self.addresses[self.placement.head]}:{self.ports.router}"
        return self.url_of(self.placement.endpoints[0])

    @property
    def router_metrics_url(self) -> str | None:
        """Base URL of the router's counters; None where there is no router."""
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
    """Place *topology* on *hosts*, assign its ports and write its commands.

    :param claim: asked once for every port.
    :param containment: puts every command into its container.
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
    # The router's ports are kept from the start, so that nobody has them when it comes.
    instances = (replace(head, ports=(*head.ports, *routed)), *others)
    router = router_command(placement, system, hosts=named, ports=ports)
    return Launch(
        placement=placement,
        ports=ports,
        instances=containment.wrap(instances),
        router=None if router is None else containment.wrap([router])[0],
        addresses=client_addresses(named, system),
    )
