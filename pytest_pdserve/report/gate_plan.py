"""The output of ``pdserve gate --plan``."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.gating.planning import STARTS
from pytest_pdserve.gating.planning import GatePlan
from pytest_pdserve.plan.forecast import Forecast
from pytest_pdserve.report.phases import forecast_line
from pytest_pdserve.values.gate_state import order_of
from pytest_pdserve.values.rules import GATE_RULE


def plan_lines(plan: GatePlan) -> Iterator[str]:
    """Yield what would run, what it takes, and what it can show."""
    request = plan.request
    differing = ", ".join(request.components) or "nothing: a gate of a stack against itself"
    yield f"A         {request.baseline.stack.text}"
    yield f"B         {request.candidate.stack.text}"
    yield f"differs   {differing}"
    for each in request.cells:
        yield f"cells     {each.topology}: {', '.join(each.workloads)}"
    starts = STARTS * len(request.cells)
    runs = STARTS * sum(len(each.workloads) for each in request.cells)
    orders = " and ".join(" ".join(order_of(block)) for block in range(2))
    yield (
        f"blocks    {request.budget.text}: {starts} starts and {runs} runs a block, in the orders "
        f"{orders}; cells that are decided are left out of later blocks"
    )
    yield f"at least  {_taken(plan.shortest)}, GO after {GATE_RULE.min_good_blocks} blocks"
    yield f"at most   {_taken(plan.longest)}, {request.budget.blocks} blocks of all cells"
    margins = ", ".join(f"{name} {100 * m:g} %" for name, m in request.policy.margins.items())
    yield f"margins   {margins}"
    yield (
        f"shows     NO-GO from block {GATE_RULE.blocks_against} on; simulated, 40 cells and the "
        "default margins: where starts of one stack differ by 1 %, 5 % in one cell is found in 99 "
        "of 100 gates; where they differ by more than 2 %, most end NOT ENOUGH EVIDENCE, with the "
        "blocks that would decide (docs/gate-rule.md)"
    )
    yield "nothing was started"


def _taken(made: Forecast | None) -> str:
    return "seconds, as nothing is started" if made is None else forecast_line(made)
