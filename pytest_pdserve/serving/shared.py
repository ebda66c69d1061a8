"""Start instances that several topologies share, and put each topology's router in front."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.plan.placement import rotated
from pytest_pdserve.plan.sharing import SharedLaunch
from pytest_pdserve.plan.sharing import plan_shared
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.deployment import Deployment
from pytest_pdserve.serving.measure import diagnosing_nodes
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.stand_up import complete_deployment
from pytest_pdserve.serving.stand_up import servers_of
from pytest_pdserve.serving.stand_up import starting
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engines:
    """Instances that are ready."""

    plan: SharedLaunch
    processes: tuple[Process, ...]
    ready_s: float
    """Seconds until they were ready."""


@dataclass(slots=True, kw_only=True, eq=False)
class SharedEngines:
    """Instances of a group of topologies, started at the first use.

    They are restarted for a topology that has already used this start, because only runs on
    different starts are independent evidence.
    """

    topologies: tuple[Topology, ...]
    """Topologies that share them."""
    system: System
    """System that they run on."""
    allocation: Allocation
    """Nodes of the session."""
    bench: BenchClient
    """Benchmark client."""
    logs: Callable[[int], Path]
    """Returns the folder of the logs of a start, counted from 0."""
    rotation: Callable[[int], int]
    """Returns the positions by which nodes are rotated at a start."""
    starts: int = 0
    """Number of starts so far, failed ones included."""
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _up: _Engines | None = None
    _trouble: PdserveError | None = None
    _used: set[str] = field(default_factory=set)
    """Ids of topologies that have used this start."""

    @contextlib.contextmanager
    def serving(
        self, topology: Topology, *, logs: Path, progress: Progress
    ) -> Iterator[Deployment]:
        """Start the router of *topology* in front of the instances, warm up and prove the path.

        :param logs: folder of the router's log.
        :raises PdserveError: as :func:`.stand_up.stand_up`; if the instances could not be started,
            the same error for each topology.
        """
        self.make_room(topology)
        if self._trouble is not None:
            raise self._trouble
        started = self._up is None
        engines = self._up or self._start(progress)
        self._used.add(topology.id)
        launch = engines.plan.launches[topology.id]
        nodes = [instance.node for instance in engines.plan.engines.instances]
        by_node = dict(zip(nodes, engines.processes, strict=True))
        processes = [by_node[instance.node] for instance in launch.placement.instances]
        opening = starting(self.allocation, self.system, self.bench, logs=logs, progress=progress)
        with opening as launcher:
            with diagnosing_nodes(self.allocation, progress):
                deployment = complete_deployment(launcher, launch, servers_of(launch, processes))
            deployment.shared_start = self.starts - 1
            if started:
                deployment.timings_s["ready"] = engines.ready_s
            yield deployment

    def make_room(self, topology: Topology) -> None:
        """Stop the instances if *topology* needs a new start of them.

        :raises PdserveError: if they cannot be stopped.
        """
        if topology.id in self._used or self._lost:
            self.stop()

    @property
    def are_up(self) -> bool:
        """True if they run, and so occupy the memory of their nodes."""
        return self._up is not None

    @property
    def next_start(self) -> int:
        """Number of the start that serves the next topology, from 0: the present or a new one."""
        return self.starts - self.are_up

    @property
    def _lost(self) -> bool:
        """True if an instance has ended, so that the others cannot serve a topology."""
        processes = self._up.processes if self._up is not None else ()
        return any(process.poll() is not None for process in processes)

    def _start(self, progress: Progress) -> _Engines:
        """Start the instances and wait until they are ready."""
        number, self.starts = self.starts, self.starts + 1
        try:
            self._up = self._stack.enter_context(self._started(number, progress))
        except PdserveError as error:
            self._trouble = error
            raise
        return self._up

    @contextlib.contextmanager
    def _started(self, number: int, progress: Progress) -> Iterator[_Engines]:
        names = ", ".join(topology.id for topology in self.topologies)
        allocation, hosts = self.allocation, rotated(self.allocation.hosts, self.rotation(number))
        opening = starting(
            allocation, self.system, self.bench, logs=self.logs(number), progress=progress
        )
        with opening as launcher:
            with diagnosing_nodes(allocation, progress):
                progress(f"starting instances that {names} share")
                plan, processes = launcher.start_planned(
                    lambda: plan_shared(
                        self.topologies,
                        self.system,
                        hosts=hosts,
                        claim=allocation.claim,
                        containment=allocation.containment,
                    )
                )
                ready_s = launcher.wait_ready(_servers(plan, processes))
            yield _Engines(plan=plan, processes=processes, ready_s=ready_s)

    def stop(self) -> None:
        """Stop the instances, if they are up; they are started again at the next use.

        :raises PdserveError: if they cannot be stopped.
        """
        self._up, self._trouble = None, None
        self._used.clear()
        self._stack.close()


def _servers(plan: SharedLaunch, processes: Sequence[Process]) -> list[Server]:
    """Return the instances under their own names, for waiting and messages."""
    launch = next(iter(plan.launches.values()))
    urls = {instance.node: launch.url_of(instance) for instance in launch.placement.instances}
    return [
        Server(
            name=instance.name, role=instance.role.name, url=urls[instance.node], process=process
        )
        for instance, process in zip(plan.engines.instances, processes, strict=True)
    ]
