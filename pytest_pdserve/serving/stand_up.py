"""Start the servers of a topology, warm them up, prove the path, and stop them at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TypeVar

import httpx

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.nodes import check_complete
from pytest_pdserve.backends.passing import secret_env
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.plan.placement import rotated
from pytest_pdserve.plan.sharing import SharedLaunch
from pytest_pdserve.results.redaction import redact_file
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.deployment import Deployment
from pytest_pdserve.serving.endpoint import check_answers
from pytest_pdserve.serving.endpoint import find_model
from pytest_pdserve.serving.endpoint import named_servers
from pytest_pdserve.serving.endpoint import with_served_model
from pytest_pdserve.serving.measure import diagnosing_nodes
from pytest_pdserve.serving.model import make_model
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
_AT_ONCE = httpx.Limits(max_connections=MAX_CONNECTIONS)


Planned = TypeVar("Planned", Launch, SharedLaunch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Starts commands of a session with its API key, and waits for the servers."""

    allocation: Allocation
    """Nodes of the session."""
    system: System
    """System that the commands belong to."""
    bench: BenchClient
    """Benchmark client."""
    logs: Path
    """Folder of one log per process."""
    progress: Progress
    """Receives progress messages."""
    client: httpx.Client
    """HTTP client with the session's API key."""
    processes: list[Process] = field(default_factory=list)
    """All processes that were started."""

    def start(self, commands: Sequence[Command]) -> tuple[Process, ...]:
        """Start *commands*, all at once if the backend can.

        :raises LaunchError: if one cannot be started.
        """
        started = self.allocation.start(
            commands,
            logs=[self.logs / command.log_name for command in commands],
            secrets=secret_env(commands, self.bench.api_key),
        )
        self.processes.extend(started)
        return started

    def start_planned(self, plan: Callable[[], Planned]) -> tuple[Planned, tuple[Process, ...]]:
        """Start all instances of a plan; make another plan if one of its ports is taken.

        :raises PortTakenError: if ports of five plans in a row are taken.
        """
        with Heartbeat(self.progress, "starting instances") as beat:
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                planned = plan()
                nodes = len({command.node for command in planned.instances})
                beat(f"starting {len(planned.instances)} instances on {nodes} nodes")
                try:
                    return planned, self.start(planned.instances)
                except PortTakenError as error:
                    if attempt == _PORT_ATTEMPTS:
                        raise
                    beat(f"{error}; trying other ports")
        raise AssertionError

    def wait_ready(self, servers: Sequence[Server]) -> float:
        """Wait until *servers* are ready; return the seconds that it took."""
        return wait_ready(
            servers,
            self.client,
            limit_s=self.system.limits.ready_s,
            progress=self.progress,
            check=self._check,
        )

    def _check(self) -> None:
        """Raise if a node is lost, or if the benchmark client cannot run."""
        self.allocation.check()
        self.bench.check_usable()


@contextlib.contextmanager
def stand_up(
    allocation: Allocation,
    topology: Topology,
    system: System,
    *,
    bench: BenchClient,
    logs: Path,
    progress: Progress,
    rotation: int = 0,
) -> Iterator[Deployment]:
    """Start the servers of *topology*, warm them up and prove the path; stop all on exit.

    An attached endpoint is not started or warmed up; only its path is proven.

    :param bench: benchmark client, with the session's API key.
    :param logs: folder of one log per process.
    :param rotation: positions by which nodes are rotated before instances are placed.
    :raises PlacementError: if it does not fit.
    :raises LaunchError: if a process cannot be started or ends.
    :raises NotReadyError: if a server does not answer in time.
    :raises PathError: if requests do not take the topology's path.
    """
    if allocation.endpoint is not None:
        servers = _attach(allocation.endpoint, allocation, topology, system, bench, progress)
    else:
        servers = _start_servers(
            allocation,
            topology,
            system,
            bench=bench,
            logs=logs,
            progress=progress,
            rotation=rotation,
        )
    with servers as deployment:
        yield deployment


@contextlib.contextmanager
def _start_servers(
    allocation: Allocation,
    topology: Topology,
    system: System,
    *,
    bench: BenchClient,
    logs: Path,
    progress: Progress,
    rotation: int = 0,
) -> Iterator[Deployment]:
    """Start servers and wait for them; stop all on exit."""
    check_complete(allocation, topology, system)
    with starting(allocation, system, bench, logs=logs, progress=progress) as launcher:
        with diagnosing_nodes(allocation, progress):
            hosts = rotated(allocation.hosts, rotation)
            plan, processes = launcher.start_planned(
                lambda: plan_launch(
                    topology,
                    system,
                    hosts=hosts,
                    claim=allocation.claim,
                    containment=allocation.containment,
                )
            )
            servers = servers_of(plan, processes)
            began, ready_s = time.monotonic(), launcher.wait_ready(servers)
            deployment = complete_deployment(launcher, plan, servers)
            deployment.started = began
            deployment.timings_s["ready"] = ready_s
        yield deployment


@contextlib.contextmanager
def starting(
    allocation: Allocation, system: System, bench: BenchClient, *, logs: Path, progress: Progress
) -> Iterator[Launcher]:
    """Yield a launcher; stop all processes that it started on exit.

    :param logs: folder of one log per process.
    """
    make_model(system)
    headers = {"Authorization": f"Bearer {bench.api_key}"}
    # No proxy (trust_env): it would see the API key and slow down measurements.
    with httpx.Client(headers=headers, timeout=30.0, trust_env=False, limits=_AT_ONCE) as client:
        launcher = Launcher(
            allocation=allocation,
            system=system,
            bench=bench,
            logs=logs,
            progress=progress,
            client=client,
        )
        try:
            yield launcher
        finally:
            _stop(allocation, launcher.processes, progress)


def _stop(allocation: Allocation, processes: Sequence[Process], progress: Progress) -> None:
    """Stop *processes*, and remove secrets from their logs."""
    try:
        with Heartbeat(progress, "stopping"):
            allocation.stop(processes)
    finally:
        for process in processes:
            redact_file(process.log)


def servers_of(plan: Launch, processes: Sequence[Process]) -> list[Server]:
    """Return the instances of a plan as servers, in the placement's order."""
    disaggregated = plan.placement.topology.disaggregated
    return [
        Server(
            name=instance.name,
            role=instance.role.name,
            url=None if instance.headless else plan.url_of(instance),
            process=process,
            engines=instance.dp_local if disaggregated else instance.dp_size,
            ranks=instance.tp,
        )
        for instance, process in zip(plan.placement.instances, processes, strict=True)
    ]


def complete_deployment(
    launcher: Launcher, plan: Launch, instances: Sequence[Server]
) -> Deployment:
    """Start the router in front of instances that are ready, warm them up and prove the path."""
    servers, began = list(instances), time.monotonic()
    if plan.router is not None:
        servers.append(_start_router(launcher, plan, plan.router))
        _wait_router(servers[-1], servers, launcher)
    deployment = Deployment(
        topology=plan.placement.topology,
        system=launcher.system,
        allocation=launcher.allocation,
        url=plan.url,
        nodes=plan.placement.nodes,
        servers=tuple(servers),
        client=launcher.client,
        bench=launcher.bench,
        started=began,
        progress=launcher.progress,
    )
    deployment.timings_s["warmup"] = _warm(deployment, launcher.progress)
    return deployment


def _start_router(launcher: Launcher, plan: Launch, router: Command) -> Server:
    with Heartbeat(launcher.progress, "starting the router"):
        (process,) = launcher.start([router])
    return Server(
        name="router",
        role="router",
        url=plan.url,
        process=process,
        metrics_url=plan.router_metrics_url,
    )


def _wait_router(router: Server, servers: Sequence[Server], launcher: Launcher) -> None:
    try:
        wait_ready([router], launcher.client, limit_s=_ROUTER_READY_S, progress=launcher.progress)
    except (LaunchError, NotReadyError):
        check_alive([s for s in servers if s is not router], 0.0, 0.0)
        raise


def _warm(deployment: Deployment, progress: Progress) -> float:
    began = time.monotonic()
    completions, client = deployment.completions, deployment.client
    try:
        with Heartbeat(progress, "warming up, and proving the path") as beat:
            if deployment.topology.disaggregated:
                warm_pairs(deployment.servers, completions, client, beat)
            else:
                warm_instances(deployment.servers, completions)
            prove_path(deployment.url, deployment.servers, completions, client, beat)
    except Exception:
        deployment.check_alive()
        raise
    return time.monotonic() - began


@contextlib.contextmanager
def _attach(
    endpoint: Endpoint,
    allocation: Allocation,
    topology: Topology,
    system: System,
    bench: BenchClient,
    progress: Progress,
) -> Iterator[Deployment]:
    """Use an endpoint that is already up; only instances that were named have counters.

    :raises NotReadyError: if the endpoint does not answer.
    :raises PathError: if requests do not reach the instances that were named.
    """
    make_model(system)  # for its tokenizer
    began, key = time.monotonic(), endpoint.api_key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(headers=headers, timeout=30.0, limits=_AT_ONCE) as client:
        with Heartbeat(progress, f"asking {endpoint.url} for its model"):
            served = find_model(client, endpoint, system)
        measured, foreign = with_served_model(system, served)
        tokenizer = f", and prompts are made with the tokenizer of {foreign}" if foreign else ""
        progress(f"endpoint {endpoint.url} serves {served.name}{tokenizer}")
        deployment = Deployment(
            topology=topology,
            system=measured,
            url=endpoint.url,
            nodes=(),
            servers=named_servers(endpoint, topology, measured),
            client=client,
            allocation=allocation,
            bench=bench,
            started=began,
            served_model=served.name,
            foreign_tokenizer=foreign,
            progress=progress,
        )
        _prove_endpoint(deployment, endpoint)
        yield deployment


def _prove_endpoint(deployment: Deployment, endpoint: Endpoint) -> None:
    """Check that an endpoint answers, and that requests reach the instances that were named."""
    servers, completions = deployment.servers, deployment.completions
    with Heartbeat(deployment.progress, f"asking {endpoint.url} for answers") as beat:
        check_answers(completions, endpoint, deployment.system)
        if servers:
            prove_path(deployment.url, servers, completions, deployment.client, beat)
