"""Instances that several topologies share: started once, with each topology's router in turn."""

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
from pytest_pdserve.serving.stand_up import deployed
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
    """Seconds until they answered."""


@dataclass(slots=True, kw_only=True, eq=False)
class SharedEngines:
    """Instances of one group of topologies, which are started when one is first asked for.

    A topology that has used them once has them started anew: what it measures then is evidence of
    another start.
    """

    topologies: tuple[Topology, ...]
    """Those that share them."""
    system: System
    """What they run on."""
    allocation: Allocation
    """Nodes of the session."""
    bench: BenchClient
    """What measures them."""
    logs: Callable[[int], Path]
    """Folder of the logs of a start, counted from 0."""
    rotation: Callable[[int], int]
    """Places by which nodes are rotated at a start."""
    starts: int = 0
    """Starts so far, failed ones included."""
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _up: _Engines | None = None
    _trouble: PdserveError | None = None
    _used: set[str] = field(default_factory=set)
    """Topologies that had their turn at this start."""

    @contextlib.contextmanager
    def serving(
        self, topology: Topology, *, logs: Path, progress: Progress
    ) -> Iterator[Deployment]:
        """Put the router of *topology* in front of the instances, warm them and prove the path.

        :param logs: folder of the router's log.
        :raises PdserveError: as :func:`.stand_up.stand_up`; of instances that did not come up, the
            same for each topology.
        """
        if topology.id in self._used or self._lost:
            self.stop()
        if self._trouble is not None:
            raise self._trouble
        started = self._up is None
        engines = self._up or self._start(progress)
        self._used.add(topology.id)
        launch = engines.plan.launches[topology.id]
        nodes = [each.node for each in engines.plan.engines.instances]
        by_node = dict(zip(nodes, engines.processes, strict=True))
        processes = [by_node[each.node] for each in launch.placement.instances]
        opening = starting(self.allocation, self.system, self.bench, logs=logs, progress=progress)
        with opening as launcher:
            with diagnosing_nodes(self.allocation, progress):
                deployment = deployed(launcher, launch, servers_of(launch, processes))
            deployment.shared_start = self.starts - 1
            if started:
                deployment.timings_s["ready"] = engines.ready_s
            yield deployment

    @property
    def are_up(self) -> bool:
        """Whether they run, so that they hold the memory of their nodes."""
        return self._up is not None

    @property
    def next_start(self) -> int:
        """Start that the next topology is served by, counted from 0: one that is up, or a new."""
        return self.starts - self.are_up

    @property
    def _lost(self) -> bool:
        """Whether an instance has ended: what is left serves no topology."""
        processes = self._up.processes if self._up is not None else ()
        return any(process.poll() is not None for process in processes)

    def _start(self, progress: Progress) -> _Engines:
        """Start the instances and wait until they answer."""
        number, self.starts = self.starts, self.starts + 1
        try:
            self._up = self._stack.enter_context(self._started(number, progress))
        except PdserveError as error:
            self._trouble = error
            raise
        return self._up

    @contextlib.contextmanager
    def _started(self, number: int, progress: Progress) -> Iterator[_Engines]:
        names = ", ".join(each.id for each in self.topologies)
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
        """End the instances, if they are up; they are started anew when they are asked for.

        :raises PdserveError: if they do not end.
        """
        self._up, self._trouble = None, None
        self._used.clear()
        self._stack.close()


def _servers(plan: SharedLaunch, processes: Sequence[Process]) -> list[Server]:
    """The instances under their own names, to be waited for."""
    launch = next(iter(plan.launches.values()))
    urls = {each.node: launch.url_of(each) for each in launch.placement.instances}
    return [
        Server(name=each.name, role=each.role.name, url=urls[each.node], process=process)
        for each, process in zip(plan.engines.instances, processes, strict=True)
    ]
