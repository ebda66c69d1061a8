"""What a gate will take and can show, before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.gating.asked import GateRequest
from pytest_pdserve.plan.forecast import Forecast
from pytest_pdserve.plan.forecast import TopologyWork
from pytest_pdserve.plan.forecast import forecast
from pytest_pdserve.session.forecasting import past_sessions
from pytest_pdserve.session.phases import held_by
from pytest_pdserve.values.rules import GATE_RULE

STARTS = 4
"""Starts of a topology in a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePlan:
    """What a gate will do."""

    request: GateRequest
    """What is asked."""
    least: Forecast | None
    """What the fewest blocks take that can end in GO; None where nothing takes time."""
    most: Forecast | None
    """What all blocks of the budget take, every cell in each."""


def plan_gate(request: GateRequest, runs: Path) -> GatePlan:
    """Return what a gate will take by earlier sessions of its system.

    :param runs: folder of these.
    """
    return GatePlan(
        request=request,
        least=_forecast(request, runs, GATE_RULE.min_good_blocks),
        most=_forecast(request, runs, request.budget.blocks),
    )


def _forecast(request: GateRequest, runs: Path, blocks: int) -> Forecast | None:
    system = request.system
    if system.simulated:
        return None
    loads, starts = request.loads, STARTS * blocks
    work = [
        TopologyWork(
            topology=each.topology,
            starts=starts,
            runs=tuple(loads[name] for name in each.workloads) * starts,
        )
        for each in request.cells
    ]
    cluster = system.cluster
    return forecast(
        work,
        past_sessions(runs, system.name),
        client_kind=backend_of(system).client_kind(system),
        gpus=cluster.nodes * cluster.gpus_per_node,
        held=held_by(system, nodes=cluster.nodes),
    )
