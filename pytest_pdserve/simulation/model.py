"""The simulation of one run: requests, engines and noise give a benchmark result."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.simulation.constants import Constants
from pytest_pdserve.simulation.constants import fitted
from pytest_pdserve.simulation.engine import Request
from pytest_pdserve.simulation.noise import delay_first_tokens
from pytest_pdserve.simulation.noise import draw
from pytest_pdserve.simulation.noise import slowed
from pytest_pdserve.simulation.options import EngineLimits
from pytest_pdserve.simulation.options import SimulationSpec
from pytest_pdserve.simulation.options import check_size
from pytest_pdserve.simulation.options import engine_limits
from pytest_pdserve.simulation.result import bench_result
from pytest_pdserve.simulation.service import Caches
from pytest_pdserve.simulation.service import Outcome
from pytest_pdserve.simulation.service import Service
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """One simulated run: the client's result and the instances' counters."""

    result: BenchResult
    served: tuple[ServedCounts, ...]
    """Counters of each instance."""


def check_workload(workload: Workload) -> None:
    """Check that *workload* can be simulated.

    :raises ConfigError: if it is too large, or the model does not support its data set, options or
        arrivals.
    """
    load = workload.known()
    check_size(workload)
    for name, default in (("burstiness", 1.0), ("ramp_up", None)):
        if getattr(workload, name) != default:
            raise ConfigError(f"a load with {name} cannot be simulated; leave it out")
    if load.options:
        raise ConfigError(f"options {', '.join(load.options)} cannot be simulated; leave them out")
    if workload.dataset != "random":
        raise ConfigError(
            f"dataset {workload.dataset!r} cannot be simulated: its lengths are unknown; "
            "expected 'random'"
        )


def make_requests(
    workload: Workload, seed: int, lengths: Sequence[tuple[int, int]] = ()
) -> list[Request]:
    """Return the requests of *workload*: all at once, or as a Poisson process of its rate.

    :param lengths: input and output length of each request, if they differ.
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
    """Serve *cells* in sequence on engines that keep their prefix caches between cells.

    :param lengths: input and output length of each request of the last cell, if they differ.
    :raises ConfigError: if a workload or the system's noise cannot be simulated.
    :raises PlacementError: if the model does not support the topology.
    """
    for cell in cells:
        check_workload(cell)
    spec, caches = system.table("simulation", SimulationSpec), Caches()
    nodes = [f"node{n}" for n in range(system.cluster.nodes)]
    if spec.bad_node is not None and spec.bad_node not in nodes:
        names = ", ".join(nodes)
        raise ConfigError(f"simulation.bad_node = {spec.bad_node!r}, expected one of {names}")
    factors = {spec.bad_node: spec.bad_node_factor} if spec.bad_node else {}
    limits = limits_of(system)
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
            limits=limits,
        )
        mix = lengths if cell is cells[-1] else ()
        outcomes.append(service.run(make_requests(cell, seed, mix), cell.known().max_concurrency))
        delay_first_tokens(outcomes[-1].requests, drawn)
    return tuple(outcomes)


def limits_of(system: System) -> dict[str, EngineLimits]:
    """Return the limits of the engines of each role; empty for a system of real servers.

    :raises ConfigError: if a simulated engine does not support an argument.
    """
    if not system.simulated:
        return {}
    return {role: engine_limits(system.serve_args(role)) for role in ROLES}


def earlier_cells(workload: Workload, system: System) -> tuple[Workload, ...]:
    """Return the cells of the sweep before *workload*; none if it is not a cell of the sweep."""
    cells = system.sweep.workloads()
    ids = [cell.id for cell in cells]
    return cells[: ids.index(workload.id)] if workload.id in ids else ()


def simulate(
    placement: Placement, workload: Workload, system: System, *, repeat: int = 0
) -> SimulatedRun:
    """Return a simulated run of *workload*; the same arguments give the same numbers.

    :raises ConfigError: if the workload cannot be simulated.
    :raises PlacementError: if the model does not support the topology.
    """
    earlier = (
        earlier_cells(workload, system) if system.table("simulation", SimulationSpec).replay else ()
    )
    outcome = serve(placement, (*earlier, workload), system, repeat=repeat)[-1]
    data = bench_result(outcome, workload.known())
    result = BenchResult.from_json(data, source="the simulation")
    return SimulatedRun(result=result, served=outcome.served)
