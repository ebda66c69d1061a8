"""Nodes that do not exist, and what a benchmark on them would have measured."""

from __future__ import annotations

import random
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pdserve.cluster.process import Process
from pytest_pdserve.cluster.simulation.constants import Constants
from pytest_pdserve.cluster.simulation.constants import fitted
from pytest_pdserve.cluster.simulation.engine import Request
from pytest_pdserve.cluster.simulation.noise import delay_first_tokens
from pytest_pdserve.cluster.simulation.noise import draw
from pytest_pdserve.cluster.simulation.noise import slowed
from pytest_pdserve.cluster.simulation.result import bench_result
from pytest_pdserve.cluster.simulation.service import Caches
from pytest_pdserve.cluster.simulation.service import Outcome
from pytest_pdserve.cluster.simulation.service import Service
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import planned_hosts
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload


class SimulatedAllocation:
    """Nodes in name only: nothing can be started on them."""

    kind = "simulated"

    def __init__(self, system: System) -> None:
        self._replay = system.simulation.replay
        self._night = system.simulation.night
        self.hosts = planned_hosts(system)
        self.client_node = self.hosts[0].name

    def claim(self, node: str, port: int) -> bool:
        """Every port is free where nobody listens."""
        return True

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[Process, ...]:
        """Refuse.

        :raises LaunchError: always.
        """
        raise LaunchError(f"{commands[0].name} cannot be started: the nodes are simulated")

    def stop(self, processes: Sequence[Process]) -> None:
        """Nothing runs."""

    def check(self, *, fresh: bool = False) -> None:
        """Nothing can be lost."""

    def find_versions(self) -> Mapping[str, str]:
        """Nothing is installed."""
        return {}

    def describe_nodes(self) -> Mapping[str, str]:
        """The model's constants, which decide how fast the nodes serve."""
        constants = {name: f"{value:g}" for name, value in asdict(fitted()).items()}
        return {"simulated": "yes", "replay": str(self._replay)} | constants

    def diagnose(self) -> None:
        """Nothing to ask."""

    def describe(self) -> Mapping[str, Any]:
        """What records keep of these nodes."""
        return {"kind": self.kind, "night": self._night}

    def release(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """One simulated run, as a client and the instances' counters would show it."""

    result: BenchResult
    """The client's result."""
    served: tuple[ServedCounts, ...]
    """Counts per instance."""


def check_workload(workload: Workload) -> None:
    """Make sure that *workload* can be simulated.

    :raises ConfigError: if the model says nothing of its data set, options or arrivals.
    """
    load = workload.known()
    for name, default in (("burstiness", 1.0), ("ramp_up", None)):
        if getattr(workload, name) != default:
            raise ConfigError(f"a load with {name} cannot be simulated; leave it out")
    if load.options:
        raise ConfigError(f"options {', '.join(load.options)} cannot be simulated; leave them out")
    if workload.dataset != "random":
        raise ConfigError(
            f"dataset {workload.dataset!r} cannot be simulated: its lengths are not known here; "
            "only 'random' has lengths of its own"
        )


def make_requests(
    workload: Workload, seed: int, lengths: Sequence[tuple[int, int]] = ()
) -> list[Request]:
    """The requests of *workload*: all at once, or by a Poisson process of its rate.

    :param lengths: input and output length of each request, where they differ.
    """
    source = random.Random(seed)  # noqa: S311 - a simulation
    now, requests = 0.0, []
    load = workload.known()
    for number in range(load.num_prompts):
        inputs, outputs = lengths[number] if lengths else load.lengths or (1, 1)
        requests.append(Request(prompt=number, input_len=inputs, output_len=outputs, arrival=now))
        if load.request_rate is not None:
            now += source.expovariate(load.request_rate)
    return requests


def serve(
    placement: Placement,
    cells: Sequence[Workload],
    system: System,
    *,
    repeat: int = 0,
    constants: Constants | None = None,
    lengths: Sequence[tuple[int, int]] = (),
) -> tuple[Outcome, ...]:
    """Serve *cells* one after the other on engines that keep their prefix caches between them.

    :param lengths: of each request of the last cell, where they differ.
    :raises ConfigError: if a workload or the system's noise cannot be simulated.
    :raises PlacementError: if the model says nothing of the topology.
    """
    for cell in cells:
        check_workload(cell)
    spec, caches = system.simulation, Caches()
    if spec.bad_node is not None and spec.bad_node not in {h.name for h in planned_hosts(system)}:
        known = ", ".join(host.name for host in planned_hosts(system))
        raise ConfigError(f"simulation.bad_node = {spec.bad_node!r} is none of {known}")
    factors = {spec.bad_node: spec.bad_node_factor} if spec.bad_node else {}
    outcomes = []
    for cell in cells:
        drawn = draw(spec, f"{placement.topology.id}/{cell.id}/{repeat}")
        seed = cell.seed(repeat) + 1_000_003 * spec.seed
        service = Service(
            placement,
            slowed(constants or fitted(), drawn.service),
            seed=seed,
            caches=caches,
            node_factors=factors,
        )
        mix = lengths if cell is cells[-1] else ()
        outcomes.append(service.run(make_requests(cell, seed, mix), cell.known().max_concurrency))
        delay_first_tokens(outcomes[-1].requests, drawn)
    return tuple(outcomes)


def history(workload: Workload, system: System) -> tuple[Workload, ...]:
    """Cells of the sweep before *workload*; none if it is no cell of the sweep."""
    cells = system.sweep.workloads()
    ids = [cell.id for cell in cells]
    return cells[: ids.index(workload.id)] if workload.id in ids else ()


def simulate(
    placement: Placement, workload: Workload, system: System, *, repeat: int = 0
) -> SimulatedRun:
    """Measure *workload* on nodes that do not exist; the same arguments give the same numbers.

    :raises ConfigError: if the workload cannot be simulated, or topology and model do not fit.
    """
    earlier = history(workload, system) if system.simulation.replay else ()
    outcome = serve(placement, (*earlier, workload), system, repeat=repeat)[-1]
    data = bench_result(outcome, workload.known())
    result = BenchResult.from_json(data, source="the simulation")
    return SimulatedRun(result=result, served=outcome.served)
