"""Search for the component that makes B worse, by stacks with one component swapped. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.judge.gate.blocks import Block
from pytest_pdserve.judge.gate.correctness import judge_answers
from pytest_pdserve.judge.gate.steps import GateEnd
from pytest_pdserve.judge.gate.steps import Runs
from pytest_pdserve.judge.gate.steps import block_of
from pytest_pdserve.judge.gate.steps import next_in_block
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.values.gate import Attribution
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricEvidence
from pytest_pdserve.values.gate import MetricState
from pytest_pdserve.values.gate import SwapEvidence
from pytest_pdserve.values.gate_state import GateCells
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import GateStep
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import growth

MAX_METRICS = 4
"""Number of worse metrics that swaps measure, the worst first: each costs a load per start."""
_NAMES = {"baseline": "A+{}", "candidate": "B-{}"}
"""Names of swaps: A with a component of B, and B with a component of A."""
Undeclared = Callable[[Sequence[GateStart], Sequence[str]], Sequence[str]]
"""Returns a phrase for each difference between the runs of A and of B that is not one of the named
components."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapStep:
    """The next start of an attribution: a stack with one component swapped."""

    step: GateStep
    """What to start; A is the baseline, B the stack with the swapped component."""
    component: str
    """The component that is swapped."""
    into: str
    """Stack that receives the other's component: ``baseline`` or ``candidate``."""
    workloads: tuple[str, ...]
    """Ids of the loads to measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionTarget:
    """The metrics and cells by which swaps find the component that makes B worse."""

    worse: tuple[MetricEvidence, ...]
    """Worse metrics of cells; empty if B breaks something."""
    cells: tuple[GateCells, ...]
    """Cells that are measured in every start."""


def attribution_target(
    evidence: Sequence[MetricEvidence], starts: Sequence[GateStart], cells: Sequence[GateCells]
) -> AttributionTarget:
    """Return what swaps measure: the worst metrics, or the topology that B breaks.

    :param starts: starts of the gate itself.
    """
    worse = [metric for metric in evidence if metric.state is MetricState.WORSE]
    of_cells = [metric for metric in worse if metric.workload is not None][:MAX_METRICS]
    wanted: dict[str, dict[str, None]] = {}
    for metric in of_cells:
        wanted.setdefault(metric.topology, {})[str(metric.workload)] = None
    if of_cells:
        chosen = tuple(
            GateCells(topology=name, workloads=tuple(loads)) for name, loads in wanted.items()
        )
        return AttributionTarget(worse=tuple(of_cells), cells=chosen)
    broken = {s.step.topology for s in starts if s.why and s.step.side == "B"}
    broken |= {metric.topology for metric in worse}
    return AttributionTarget(
        worse=(), cells=tuple(c for c in cells if not broken or c.topology in broken)
    )


def next_swap(
    starts: Sequence[GateStart],
    runs: Runs,
    *,
    components: Sequence[str],
    target: AttributionTarget,
    undeclared: Undeclared,
    spent: str | None = None,
) -> SwapStep | Attribution:
    """Return the next start that the attribution needs, or its result.

    :param starts: all starts, including those of swaps.
    :param components: components that differ between A and B.
    :param spent: why the budget does not cover another block; None if it does.
    """
    if len(components) == 1:
        return Attribution(
            component=components[0], why=f"{components[0]} is the only component that differs"
        )
    if not components:
        return Attribution(component=None, why="no component differs")
    results = _SwapResults(
        starts=starts,
        runs=runs,
        components=components,
        target=target,
        undeclared=undeclared,
        spent=spent,
    )
    makes_worse = results.worse(components, "baseline")
    if isinstance(makes_worse, SwapStep | Attribution):
        return makes_worse
    still_worse_without = results.worse(makes_worse, "candidate")
    if isinstance(still_worse_without, SwapStep | Attribution):
        return still_worse_without
    return results.attribution(components, makes_worse, still_worse_without)


class _SwapResults:
    """Evidence of the swaps so far."""

    def __init__(
        self,
        *,
        starts: Sequence[GateStart],
        runs: Runs,
        components: Sequence[str],
        target: AttributionTarget,
        undeclared: Undeclared,
        spent: str | None,
    ) -> None:
        self._starts, self._runs, self._target = starts, runs, target
        self._components, self._undeclared, self._spent = components, undeclared, spent
        self._evidence: list[SwapEvidence] = []
        self._blocks = 0

    def worse(self, components: Sequence[str], into: str) -> SwapStep | Attribution | list[str]:
        """Return the components whose swap makes a stack worse than A, or keeps it so.

        Until this is known it is the next start, and an attribution if it cannot be known.
        """
        found = []
        for component in components:
            result = self._swap(component, into)
            if isinstance(result, SwapStep | Attribution):
                return result
            if result:
                found.append(component)
        return found

    def _swap(self, component: str, into: str) -> SwapStep | Attribution | bool:
        """Return whether a swap makes a stack worse than A; until this is known, the next start.

        If the swapped stack cannot be measured, it is the attribution, without a component.
        """
        name = _NAMES[into].format(component)
        own = [start for start in self._starts if start.step.swap == name]
        differ = self._components_of(component, into)
        if others := self._undeclared(own, differ):
            return self._undetermined(
                f"A and {name} differ in more than {', '.join(differ)}: {others[0]}"
            )
        following = next_in_block(own, 0, self._target.cells, name)
        if isinstance(following, GateStep):
            if self._spent is not None and not own:
                return self._undetermined(self._spent)
            loads = {cells.topology: cells.workloads for cells in self._target.cells}
            return SwapStep(
                step=following, component=component, into=into, workloads=loads[following.topology]
            )
        self._blocks += 1
        if isinstance(following, GateEnd):
            if following.verdict is GateVerdict.NO_GO:
                return True
            return self._undetermined(following.error)
        plain = [replace(start, step=replace(start.step, swap="")) for start in own]
        block = block_of(plain, self._runs, 0)
        found = [_swap_evidence(block, metric, component, into) for metric in self._target.worse]
        evidence = [each for each in found if each is not None]
        self._evidence += evidence
        if judge_answers(plain, differ).faults or any(each.is_worse for each in evidence):
            return True
        if len(evidence) < len(found):
            return self._undetermined(f"runs of {name} lack a metric that is worse with B")
        return False

    def _components_of(self, swapped: str, into: str) -> tuple[str, ...]:
        """Return the components in which a stack with a swapped component differs from A."""
        if into == "baseline":
            return (swapped,)
        return tuple(name for name in self._components if name != swapped)

    def _undetermined(self, why: str | None) -> Attribution:
        """Return an attribution without a component, with the evidence so far."""
        return Attribution(
            component=None,
            why=f"the component was not determined: {why}",
            blocks=self._blocks,
            evidence=tuple(self._evidence),
        )

    def attribution(
        self,
        components: Sequence[str],
        makes_worse: Sequence[str],
        still_worse_without: Sequence[str],
    ) -> Attribution:
        """Return the result of all swaps.

        :param makes_worse: components that make A worse.
        :param still_worse_without: those of them without which B is still worse.
        """
        return Attribution(
            component=makes_worse[0] if len(makes_worse) == 1 else None,
            why=_why(components, makes_worse, still_worse_without),
            blocks=self._blocks,
            evidence=tuple(self._evidence),
        )


def _why(
    components: Sequence[str], makes_worse: Sequence[str], still_worse_without: Sequence[str]
) -> str:
    if not makes_worse:
        return f"none of {', '.join(components)} alone makes A as bad as B"
    if len(makes_worse) > 1:
        return f"each of {', '.join(makes_worse)} makes A worse by itself"
    (name,) = makes_worse
    if still_worse_without:
        return (
            f"{name} makes A worse by itself, but B with the baseline's {name} is still worse: "
            "another component makes it worse too"
        )
    return f"{name} makes B worse: A with B's {name} is worse, and B with A's {name} is not"


def _swap_evidence(
    block: Block, metric: MetricEvidence, component: str, into: str
) -> SwapEvidence | None:
    """Return the evidence of a block on one metric; None if a start lacks the metric."""
    key = metric.topology, str(metric.workload)
    sides = [
        [start.get(key, {}).get(metric.metric) for start in starts]
        for starts in (block.baseline, block.candidate)
    ]
    values: list[list[float]] = [[v for v in side if v is not None] for side in sides]
    if min(map(len, values)) < 2:
        return None
    better = METRICS[metric.metric].better
    a, b = ([signed_log(value, better) for value in side] for side in values)
    limit = math.log1p(metric.limit if metric.limit is not None else metric.margin)
    return SwapEvidence(
        component=component,
        into=into,
        topology=metric.topology,
        workload=str(metric.workload),
        metric=metric.metric,
        estimate=growth(statistics.median(y - x for x in a for y in b)),
        is_worse=min(b) - max(a) > limit,
    )
