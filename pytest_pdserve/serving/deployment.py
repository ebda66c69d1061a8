"""A topology stood up for real: instances, router, warm pairs, proven path; and its end."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from pathlib import Path

import httpx

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.plan.router import endpoint_url
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.measure import diagnosing_nodes
from pytest_pdserve.serving.measure import measure
from pytest_pdserve.serving.model import is_tiny
from pytest_pdserve.serving.model import load_vocabulary
from pytest_pdserve.serving.model import make_tiny_model
from pytest_pdserve.serving.provenance import endpoint_versions
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.readiness import check_alive
from pytest_pdserve.serving.readiness import wait_ready
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import reset_prefix_cache
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.scrape import settled
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.serving.stalls import asking
from pytest_pdserve.serving.stalls import watching_stalls
from pytest_pdserve.serving.warm_load import MAX_CONNECTIONS
from pytest_pdserve.serving.warm_load import WarmUp
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.serving.warmup import prompts
from pytest_pdserve.serving.warmup import prove_path
from pytest_pdserve.serving.warmup import warm_instances
from pytest_pdserve.serving.warmup import warm_pairs
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.errors import PortTakenError
from pytest_pdserve.values.model import SMALL_VOCABULARY
from pytest_pdserve.values.observation import Alone
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

_ROUTER_READY_S = 120.0
_PORT_ATTEMPTS = 5
_ASKED_ALONE = 4
_ALONE_TOKENS = 16
_ATTACH_S = 30.0
_AT_ONCE = httpx.Limits(max_connections=MAX_CONNECTIONS)


Start = Callable[[Sequence[Command]], tuple[Process, ...]]
"""Starts commands with the session's key, and remembers to stop them."""


def new_api_key() -> str:
    """A fresh key for the endpoints of one session."""
    return secrets.token_urlsafe(24)


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Servers that are up."""

    topology: Topology
    """What they form."""
    system: System
    """What they run on; model path resolved."""
    url: str
    """Base URL that clients ask: the router, or the one instance."""
    nodes: tuple[str, ...]
    """Nodes in use, head first."""
    servers: tuple[Server, ...]
    """Instances and router; empty for an endpoint that somebody else runs."""
    client: httpx.Client
    """HTTP with the session's API key."""
    allocation: Allocation
    """Nodes that hold the servers, or the client of servers that run already."""
    api_key: str = field(repr=False)
    """The session's API key; never written anywhere, tracebacks included."""
    started: float = 0.0
    """Monotonic time of the start."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Seconds of stand-up phases."""
    warm_up: WarmUp = field(default_factory=WarmUp)
    """What the servers were sent to warm them up."""

    @property
    def instances(self) -> tuple[Server, ...]:
        """Servers whose counters tell the path: all with a URL but the router."""
        return tuple(s for s in self.servers if s.url is not None and s.role != "router")

    @property
    def versions(self) -> Mapping[str, str]:
        """What servers that run already say of their versions; empty where nodes tell."""
        attached = self.allocation.endpoint is not None
        return endpoint_versions(self.client, self.url) if attached else {}

    @property
    def vllm_version(self) -> str | None:
        """Version of the servers' vLLM, as they say themselves; None if they do not."""
        url = self.instances[0].url if self.instances else self.url
        return endpoint_versions(self.client, str(url)).get("vllm")

    @property
    def completions(self) -> Completions:
        """Sends single requests."""
        return Completions(self.client, self.system.model.path, self.system.limits.warmup_s)

    def warm_for(self, workload: Workload) -> Mapping[str, float]:
        """Send the warm-up requests that *workload* still needs; return all sent since the start.

        :raises PathError: if a request fails.
        """
        self.warm_up.warm_for(
            workload,
            [point.workload for point in self.system.sweep.points()],
            servers=self.servers,
            completions=self.completions,
            vocabulary=load_vocabulary(self.system.model.path) or SMALL_VOCABULARY,
        )
        return dict(self.warm_up.done)

    def become(self, other: Deployment) -> None:
        """Stand for the servers of *other*, which replaced these."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

    def check_alive(self) -> None:
        """Make sure that no server has ended and no node is lost.

        :raises AllocationError: naming the node.
        :raises LaunchError: naming the server.
        """
        self.allocation.check()
        check_alive(self.servers, self.started, time.monotonic())

    def scrape(self) -> dict[str, Counters]:
        """Counters of every instance, once they stand still.

        :raises PathError: if one does not answer.
        """
        return settled(lambda: {s.name: scrape(self.client, str(s.url)) for s in self.instances})

    def ask_alone(self) -> Alone:
        """Ask a few different prompts, one after the other, and read their streams to the end."""
        answers: list[str] = []
        for prompt in itertools.islice(prompts(), _ASKED_ALONE):
            try:
                answer = self.completions.stream(self.url, prompt, tokens=_ALONE_TOKENS)
            except PathError as error:
                return Alone(answers=tuple(answers), fault=str(error))
            answers.append(answer.text)
        return Alone(answers=tuple(answers))

    def reset_prefix_caches(self) -> bool | None:
        """Empty the prefix cache of every instance, where ``vllm serve`` offers that.

        It does with ``VLLM_SERVER_DEV_MODE=1`` only, and refuses while blocks are in use.

        :returns: whether all are empty now; None if there is nobody to ask, or none offers it.
        """
        answers = [reset_prefix_cache(self.client, str(s.url)) for s in self.instances]
        return all(answers) if any(answer is not None for answer in answers) else None

    def watching_stalls(self) -> contextlib.AbstractContextManager[Stalls]:
        """Look at the engines, once a second, until the block is left."""
        return watching_stalls(self.instances, asking(self.client))

    def measure(
        self,
        workload: Workload,
        *,
        repeat: int,
        start: int,
        store: RunStore,
        provenance: Provenance,
    ) -> tuple[Record, Path]:
        """Run *workload* once and write its record; see :func:`.measure.measure`."""
        return measure(
            self, workload, repeat=repeat, start=start, store=store, provenance=provenance
        )


@contextlib.contextmanager
def stand_up(
    allocation: Allocation,
    topology: Topology,
    system: System,
    *,
    logs: Path,
    progress: Progress,
) -> Iterator[Deployment]:
    """Stand *topology* up, warm and proven; end all of it on leaving, whatever happens.

    Servers that run already are only asked whether they answer.

    :param logs: folder of one log per process.
    :raises PlacementError: if it does not fit.
    :raises LaunchError: if a process cannot be started or ends.
    :raises NotReadyError: if one does not answer in time.
    :raises PathError: if requests do not take the topology's path.
    """
    if allocation.endpoint is not None:
        servers = _attach(allocation, allocation.endpoint, topology, system)
    else:
        servers = _start_servers(allocation, topology, system, logs=logs, progress=progress)
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
                launched = _launch(topology, system, allocation, start, progress)
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
    start: Start,
    progress: Progress,
) -> tuple[Launch, list[Server]]:
    """Plan and start all instances; anew with other ports where some turn out to be taken."""
    hosts = {host.name: host for host in allocation.hosts}
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        plan = plan_launch(
            topology,
            system,
            hosts=allocation.hosts,
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
            url=None if instance.headless else endpoint_url(instance, hosts, plan.ports),
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
        router = Server(name="router", role="router", url=url, process=start([plan.router])[0])
        servers.append(router)
        _wait_router(router, servers, client, progress)
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
    warm_s = _warm(deployment, progress)
    deployment.timings_s |= {"ready": ready_s, "warmup": warm_s}
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
        sent = prove_path(deployment.url, deployment.servers, completions, client, progress)
    except Exception:
        deployment.check_alive()
        raise
    progress(f"path tried with {sent} requests: {deployment.url}")
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
