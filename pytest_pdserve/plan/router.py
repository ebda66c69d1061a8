"""Build the ``vllm-router`` command of a placement."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pdserve.plan.addresses import client_addresses
from pytest_pdserve.plan.addresses import listening_address
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.command import value_of
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.placement import Instance
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.ports import Ports
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.system import System

API_KEY_VARIABLE = "OPENAI_API_KEY"
"""Variable of the API key that the router sends to prefill and decode instances."""


DEFAULT_POLICY = "round_robin"
"""Policy for aggregated groups."""
DISAGGREGATED_POLICY = "consistent_hash"
"""Policy for prefill and decode instances."""


def endpoint_url(instance: Instance, addresses: Mapping[str, str], ports: Ports) -> str:
    """Return the base URL of an instance.

    :param addresses: by node, from :func:`~.addresses.client_addresses`.
    """
    return f"http://{addresses[instance.node]}:{ports.instances[instance.name].http}"


def router_command(
    placement: Placement, system: System, *, hosts: Mapping[str, Host], ports: Ports
) -> Command | None:
    """Return the router's command; None if clients send requests directly to the instance.

    The policy is round robin for aggregated groups and consistent hash for prefill and decode
    instances, unless the system's arguments set another.
    """
    if not placement.routed:
        return None
    addresses = client_addresses(hosts, system)
    urls = {i.name: endpoint_url(i, addresses, ports) for i in placement.endpoints}
    disaggregated = placement.topology.disaggregated
    argv = [system.programs.router]
    if value_of(system.router.args, "--policy") is None:
        argv += ["--policy", DISAGGREGATED_POLICY if disaggregated else DEFAULT_POLICY]
    if disaggregated:
        argv += ["--vllm-pd-disaggregation"]
        for role in ROLES.values():
            for instance in placement.of(role.name) if role.router_flag else ():
                argv += [str(role.router_flag), urls[instance.name]]
    else:
        argv += ["--worker-urls", *urls.values()]
    argv += ["--intra-node-data-parallel-size", str(_engines_per_endpoint(placement))]
    listening = listening_address(hosts[placement.head], system)
    argv += ["--host", listening, "--port", str(ports.router)]
    argv += ["--prometheus-host", listening, "--prometheus-port", str(ports.router_metrics)]
    argv += system.router.args
    return Command(
        name="router",
        role="router",
        node=placement.head,
        argv=tuple(argv),
        secrets=(API_KEY_VARIABLE,),
    )


def _engines_per_endpoint(placement: Placement) -> int:
    sizes = {instance.dp_local for instance in placement.endpoints}
    if len(sizes) > 1:
        raise PlacementError(
            f"topology {placement.topology.id!r} has {' and '.join(map(str, sorted(sizes)))} "
            "engines per node, but vllm-router takes one --intra-node-data-parallel-size for all"
        )
    return sizes.pop()
