"""Which component makes B worse: A with one component of B, and B with one of A. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.judge.gate.blocks import Block
from pytest_pdserve.judge.gate.correctness import judge_answers
from pytest_pdserve.judge.gate.steps import GateEnd
from pytest_pdserve.judge.gate.steps import Runs
from pytest_pdserve.judge.gate.steps import block_of
from pytest_pdserve.judge.gate.steps import within
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

MOST_METRICS = 4
"""Worse metrics that are looked at, the worst first: each more costs a load in every start."""
_NAMES = {"baseline": "A+{}", "candidate": "B-{}"}
"""Names of swaps: A with B's component, and B with A's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapStep:
    """A start that an attribution needs."""

    step: GateStep
    """What to start; A is the baseline, B the stack with the swapped component."""
    component: str
    """What is swapped."""
    into: str
    """``baseline`` or ``candidate``."""
    workloads: tuple[str, ...]
    """Ids of its loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """What is wrong with B, as far as a swap may show it."""

    worse: tuple[MetricEvidence, ...]
    """Worse metrics of cells; empty where B breaks something."""
    cells: tuple[GateCells, ...]
    """What is measured in every start."""


def suspect_of(
    evidence: Sequence[MetricEvidence], starts: Sequence[GateStart], cells: Sequence[GateCells]
) -> Suspect:
    """Return what swaps look at: the worst metrics, or the topology that B breaks.

    :param starts: of the gate itself.
    """
    worse = [each for each in evidence if each.state is MetricState.WORSE]
    of_cells = [each for each in worse if each.workload is not None][:MOST_METRICS]
    wanted: dict[str, dict[str, None]] = {}
    for each in of_cells:
        wanted.setdefault(each.topology, {})[str(each.workload)] = None
    if of_cells:
        chosen = tuple(
            GateCells(topology=name, workloads=tuple(loads)) for name, loads in wanted.items()
        )
        return Suspect(worse=tuple(of_cells), cells=chosen)
    broken = {s.step.topology for s in starts if s.why and s.step.side == "B"}
    broken |= {each.topology for each in worse}
    return Suspect(worse=(), cells=tuple(c for c in cells if not broken or c.topology in broken))


def next_swap(
    starts: Sequence[GateStart], runs: Runs, *, components: Sequence[str], suspect: Suspect
) -> SwapStep | Attribution:
    """Return the next start that shows which component it is, or the answer.

    :param starts: all starts, of swaps too.
    :param components: what differs between A and B.
    """
    if len(components) == 1:
        return Attribution(
            component=components[0], why=f"{components[0]} is the only component that differs"
        )
    if not components:
        return Attribution(component=None, why="no component differs")
    found = _Found(starts=starts, runs=runs, suspect=suspect)
    moved = []
    for component in components:
        said = found.swap(component, "baseline")
        if isinstance(said, SwapStep | Attribution):
            return said
        if said:
            moved.append(component)
    remain = []
    for component in moved:
        said = found.swap(component, "candidate")
        if isinstance(said, SwapStep | Attribution):
            return said
        if said:
            remain.append(component)
    return found.answer(components, moved, remain)


class _Found:
    """What swaps have shown so far."""

    def __init__(self, *, starts: Sequence[GateStart], runs: Runs, suspect: Suspect) -> None:
        self._starts, self._runs, self._suspect = starts, runs, suspect
        self._evidence: list[SwapEvidence] = []
        self._blocks = 0

    def swap(self, component: str, into: str) -> SwapStep | Attribution | bool:
        """Return whether a swap makes a stack worse than A, or what is to be done to know it."""
        name = _NAMES[into].format(component)
        own = [start for start in self._starts if start.step.swap == name]
        found = within(own, 0, self._suspect.cells, name)
        if isinstance(found, GateStep):
            loads = {each.topology: each.workloads for each in self._suspect.cells}
            return SwapStep(
                step=found, component=component, into=into, workloads=loads[found.topology]
            )
        if isinstance(found, GateEnd):
            if found.verdict is GateVerdict.NO_GO:
                return True
            why = f"the component was not found out: {found.error}"
            return Attribution(
                component=None, why=why, blocks=self._blocks, evidence=tuple(self._evidence)
            )
        self._blocks += 1
        plain = [replace(start, step=replace(start.step, swap="")) for start in own]
        block = block_of(plain, self._runs, 0)
        seen = [e for each in self._suspect.worse if (e := _seen(block, each, component, into))]
        self._evidence += seen
        wrong = judge_answers(plain, (component,)).faults
        return bool(wrong) or any(each.is_worse for each in seen)

    def answer(
        self, components: Sequence[str], moved: Sequence[str], remain: Sequence[str]
    ) -> Attribution:
        """Return what all swaps together say.

        :param moved: components that make A worse.
        :param remain: those of them without which B is worse all the same.
        """
        return Attribution(
            component=moved[0] if len(moved) == 1 else None,
            why=_why(components, moved, remain),
            blocks=self._blocks,
            evidence=tuple(self._evidence),
        )


def _why(components: Sequence[str], moved: Sequence[str], remain: Sequence[str]) -> str:
    if not moved:
        return f"none of {', '.join(components)} alone makes A as bad as B"
    if len(moved) > 1:
        return f"each of {', '.join(moved)} makes A worse by itself"
    (name,) = moved
    if remain:
        return (
            f"{name} makes A worse by itself, but B with the baseline's {name} is still worse: "
            "another component does it too"
        )
    return f"{name} does it: A with B's {name} is worse, and B with A's {name} is not"


def _seen(block: Block, each: MetricEvidence, component: str, into: str) -> SwapEvidence | None:
    """Return what a block says of one metric; None if a start lacks it."""
    key = each.topology, str(each.workload)
    sides = [
        [start.get(key, {}).get(each.metric) for start in starts]
        for starts in (block.baseline, block.candidate)
    ]
    values: list[list[float]] = [[v for v in side if v is not None] for side in sides]
    if min(map(len, values)) < 2:
        return None
    better = METRICS[each.metric].better
    a, b = ([signed_log(value, better) for value in side] for side in values)
    limit = math.log1p(each.limit if each.limit is not None else each.margin)
    return SwapEvidence(
        component=component,
        into=into,
        topology=each.topology,
        workload=str(each.workload),
        metric=each.metric,
        estimate=growth(statistics.median(y - x for x in a for y in b)),
        is_worse=min(b) - max(a) > limit,
    )
