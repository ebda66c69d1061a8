"""A topology stood up for real: instances, router, warm pairs, proven path; and its end."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

import httpx

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.plan.placement import rotated
from pytest_pdserve.plan.router import endpoint_url
from pytest_pdserve.serving.deployment import Deployment
from pytest_pdserve.serving.measure import diagnosing_nodes
from pytest_pdserve.serving.model import is_tiny
from pytest_pdserve.serving.model import make_tiny_model
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.readiness import check_alive
from pytest_pdserve.serving.readiness import wait_ready
from pytest_pdserve.serving.warm_load import MAX_CONNECTIONS
from pytest_pdserve.serving.warmup import prove_path
from pytest_pdserve.serving.warmup import warm_instances
from pytest_pdserve.serving.warmup import warm_pairs
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import PortTakenError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

_ROUTER_READY_S = 120.0
_PORT_ATTEMPTS = 5
_ATTACH_S = 30.0
_AT_ONCE = httpx.Limits(max_connections=MAX_CONNECTIONS)


Start = Callable[[Sequence[Command]], tuple[Process, ...]]
"""Starts commands with the session's key, and remembers to stop them."""


def new_api_key() -> str:
    """A fresh key for the endpoints of one session."""
    return secrets.token_urlsafe(24)


@contextlib.contextmanager
def stand_up(
    allocation: Allocation,
    topology: Topology,
    system: System,
    *,
    logs: Path,
    progress: Progress,
    rotation: int = 0,
) -> Iterator[Deployment]:
    """Stand *topology* up, warm and proven; end all of it on leaving, whatever happens.

    Servers that run already are only asked whether they answer.

    :param logs: folder of one log per process.
    :param rotation: places by which nodes are rotated before instances are put on them.
    :raises PlacementError: if it does not fit.
    :raises LaunchError: if a process cannot be started or ends.
    :raises NotReadyError: if one does not answer in time.
    :raises PathError: if requests do not take the topology's path.
    """
    if allocation.endpoint is not None:
        servers = _attach(allocation, allocation.endpoint, topology, system)
    else:
        servers = _start_servers(
            allocation, topology, system, logs=logs, progress=progress, rotation=rotation
        )
    with servers as deployment:
        yield deployment


@contextlib.contextmanager
def _start_servers(
    allocation: Allocation,
    topology: Topology,
    system: System,
    *,
    logs: Path,
    progress: Progress,
    rotation: int = 0,
) -> Iterator[Deployment]:
    """Start servers, make them ready, and end all of them on leaving."""
    if is_tiny(system):
        make_tiny_model(Path(system.model.path))
    key = new_api_key()
    processes: list[Process] = []

    def start(commands: Sequence[Command]) -> tuple[Process, ...]:
        started = allocation.start(
            commands,
            logs=[logs / command.log_name for command in commands],
            secrets=dict.fromkeys({name for c in commands for name in c.secrets}, key),
        )
        processes.extend(started)
        return started

    headers = {"Authorization": f"Bearer {key}"}
    # Nodes are reached directly: the caller's proxy would see the key, and slow what is measured.
    with httpx.Client(headers=headers, timeout=30.0, trust_env=False, limits=_AT_ONCE) as client:
        try:
            with diagnosing_nodes(allocation):
                hosts = rotated(allocation.hosts, rotation)
                launched = _launch(topology, system, allocation, hosts, start, progress)
                deployment = _make_ready(
                    *launched, system, allocation, (client, key), start, progress
                )
            yield deployment
        finally:
            allocation.stop(processes)


def _launch(
    topology: Topology,
    system: System,
    allocation: Allocation,
    hosts: Sequence[Host],
    start: Start,
    progress: Progress,
) -> tuple[Launch, list[Server]]:
    """Plan and start all instances; anew with other ports where some turn out to be taken."""
    named = {host.name: host for host in hosts}
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        plan = plan_launch(
            topology,
            system,
            hosts=hosts,
            claim=allocation.claim,
            containment=allocation.containment,
        )
        nodes = len(plan.placement.nodes)
        progress(f"starting {len(plan.instances)} instances on {nodes} nodes")
        try:
            processes = start(plan.instances)
            break
        except PortTakenError as error:
            if attempt == _PORT_ATTEMPTS:
                raise
            progress(f"{error}; trying others")
    servers = [
        Server(
            name=instance.name,
            role=instance.role.name,
            url=None if instance.headless else endpoint_url(instance, named, plan.ports),
            process=process,
            engines=instance.dp_size if not topology.disaggregated else instance.dp_local,
            ranks=instance.tp,
        )
        for instance, process in zip(plan.placement.instances, processes, strict=True)
    ]
    return plan, servers


def _make_ready(
    plan: Launch,
    servers: list[Server],
    system: System,
    allocation: Allocation,
    access: tuple[httpx.Client, str],
    start: Start,
    progress: Progress,
) -> Deployment:
    client, key = access
    placement = plan.placement
    began = time.monotonic()
    ready_s = wait_ready(
        servers,
        client,
        limit_s=system.limits.ready_s,
        progress=progress,
        check=allocation.check,
    )
    url = plan.url(allocation.hosts)
    if plan.router is not None:
        metrics_url = plan.router_metrics_url(allocation.hosts)
        process = start([plan.router])[0]
        servers.append(
            Server(name="router", role="router", url=url, process=process, metrics_url=metrics_url)
        )
        _wait_router(servers[-1], servers, client, progress)
    deployment = Deployment(
        topology=placement.topology,
        system=system,
        allocation=allocation,
        url=url,
        nodes=placement.nodes,
        servers=tuple(servers),
        client=client,
        api_key=key,
        started=began,
    )
    deployment.timings_s |= {"ready": ready_s, "warmup": _warm(deployment, progress)}
    return deployment


def _wait_router(
    router: Server, servers: list[Server], client: httpx.Client, progress: Progress
) -> None:
    try:
        wait_ready([router], client, limit_s=_ROUTER_READY_S, progress=progress)
    except (LaunchError, NotReadyError):
        check_alive([s for s in servers if s is not router], 0.0, 0.0)
        raise


def _warm(deployment: Deployment, progress: Progress) -> float:
    began = time.monotonic()
    completions, client = deployment.completions, deployment.client
    try:
        if deployment.topology.disaggregated:
            warm_pairs(deployment.servers, completions, client, progress)
        else:
            warm_instances(deployment.servers, completions)
        prove_path(deployment.url, deployment.servers, completions, client, progress)
    except Exception:
        deployment.check_alive()
        raise
    return time.monotonic() - began


@contextlib.contextmanager
def _attach(
    allocation: Allocation, endpoint: Endpoint, topology: Topology, system: System
) -> Iterator[Deployment]:
    """Use servers that run already; the instances behind the endpoint cannot be asked.

    :raises NotReadyError: if it does not answer.
    """
    key = endpoint.api_key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(headers=headers, timeout=30.0) as client:
        server = Server(name="endpoint", role="router", url=endpoint.url, process=None)
        wait_ready([server], client, limit_s=_ATTACH_S, progress=lambda _: None)
        yield Deployment(
            topology=topology,
            system=system,
            url=endpoint.url,
            nodes=(),
            servers=(),
            client=client,
            allocation=allocation,
            api_key=key,
            started=time.monotonic(),
        )
