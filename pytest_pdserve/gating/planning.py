"""Forecast the cost of a gate before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.gating.request import GateRequest
from pytest_pdserve.plan.forecast import Forecast
from pytest_pdserve.plan.forecast import TopologyWork
from pytest_pdserve.plan.forecast import forecast
from pytest_pdserve.session.forecasting import past_sessions
from pytest_pdserve.session.phases import held_by
from pytest_pdserve.values.rules import GATE_RULE

STARTS = 4
"""Number of starts of a topology in a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePlan:
    """A gate and its forecasts."""

    request: GateRequest
    shortest: Forecast | None
    """Cost of the fewest blocks that can end in GO; None if simulated."""
    longest: Forecast | None
    """Cost of all blocks of the budget, with every cell in each."""


def plan_gate(request: GateRequest, runs: Path) -> GatePlan:
    """Return a gate with forecasts from earlier sessions of its system.

    :param runs: folder of the sessions.
    """
    return GatePlan(
        request=request,
        shortest=_forecast(request, runs, GATE_RULE.min_good_blocks),
        longest=_forecast(request, runs, request.budget.blocks),
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
        held=held_by(system, nodes=cluster.held_nodes),
    )
