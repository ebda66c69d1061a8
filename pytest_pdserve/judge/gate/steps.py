"""The next step of a gate, from all that it has measured so far. Pure.

Only the list of finished starts decides, so that an interrupted gate continues with the same
pairing.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.judge.gate.blocks import Block
from pytest_pdserve.judge.gate.blocks import GateJudgement
from pytest_pdserve.judge.gate.blocks import Start
from pytest_pdserve.judge.gate.correctness import judge_answers
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate_state import GateCells
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import GateStep
from pytest_pdserve.values.gate_state import Outcome
from pytest_pdserve.values.gate_state import order_of
from pytest_pdserve.values.record import Record

ATTEMPTS = 2
"""Times that a start may fail before its stack counts as broken, and may be disturbed before the
gate ends."""
MIN_FAILED_STARTS = 3
"""Failed starts of B that are a fault if none of A failed, even if each second attempt worked. If
both stacks are equally likely to fail, three of B and none of A happen in one case of eight."""
Runs = Mapping[str, Sequence[Record]]
"""Records by folder of the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEnd:
    """End of a gate: verdict and reasons."""

    verdict: GateVerdict
    faults: tuple[str, ...] = ()
    """A sentence for each thing that B breaks and A does not."""
    error: str | None = None
    """Why the stacks cannot be compared; None if they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateProgress:
    """The state of a gate: its next step or its end, and its judgement so far."""

    step: GateStep | None
    """The next step; None if the gate is over."""
    workloads: tuple[str, ...] = ()
    """Ids of the loads of the next step."""
    end: GateEnd | None = None
    """Why the gate is over; None if it is not."""
    judgement: GateJudgement | None = None
    """The judgement on the finished blocks; None before the first."""
    blocks: tuple[Block, ...] = ()
    """Finished blocks."""


def next_step(
    starts: Sequence[GateStart],
    runs: Runs,
    *,
    cells: Sequence[GateCells],
    policy: GatePolicy,
    components: Sequence[str],
) -> GateProgress:
    """Return the next step of a gate, or its end.

    :param starts: finished starts of the gate itself, in order.
    :param cells: all cells that the gate measures.
    :param components: components that differ between the stacks.
    """
    from pytest_pdserve.judge.gate.rule import judge_gate

    wanted = [*cells]
    blocks: list[Block] = []
    judgement = None
    while True:
        following = next_in_block(starts, len(blocks), wanted)
        if isinstance(following, GateEnd):
            return GateProgress(step=None, end=following, judgement=judgement, blocks=tuple(blocks))
        if following is not None:
            loads = next(c.workloads for c in wanted if c.topology == following.topology)
            return GateProgress(
                step=following, workloads=loads, judgement=judgement, blocks=tuple(blocks)
            )
        blocks.append(block_of(starts, runs, len(blocks)))
        judgement = judge_gate(blocks, policy)
        done = [start for start in starts if start.step.block < len(blocks)]
        if end := _ended(done, judgement, components):
            return GateProgress(step=None, end=end, judgement=judgement, blocks=tuple(blocks))
        wanted = [*_wanted(cells, judgement.cells)]


def _ended(
    starts: Sequence[GateStart], judgement: GateJudgement, components: Sequence[str]
) -> GateEnd | None:
    """Return why a gate is over after its last block; None if it is not.

    :param starts: starts of its finished blocks.
    """
    faults = (*judge_answers(starts, components).faults, *_often_failed(starts))
    if faults:
        return GateEnd(verdict=GateVerdict.NO_GO, faults=faults)
    if judgement.verdict is None:
        return None
    return GateEnd(verdict=judgement.verdict)


def _wanted(cells: Sequence[GateCells], keys: Sequence[Key]) -> Iterator[GateCells]:
    """Yield the cells that the next block measures."""
    for of_topology in cells:
        left = tuple(n for n in of_topology.workloads if (of_topology.topology, n) in {*keys})
        if left:
            yield replace(of_topology, workloads=left)


def next_in_block(
    starts: Sequence[GateStart], block: int, wanted: Sequence[GateCells], swap: str = ""
) -> GateStep | GateEnd | None:
    """Return the next step of a block, or why the gate is over; None if the block is complete.

    :param swap: name of the swap, as :attr:`.GateStep.swap`; empty for the gate itself.
    """
    for place, side in enumerate(order_of(block)):
        for cells in wanted:
            step = GateStep(block=block, place=place, side=side, topology=cells.topology, swap=swap)
            following = _next_at(step, starts)
            if following is not None:
                return following
    return None


def _next_at(step: GateStep, starts: Sequence[GateStart]) -> GateStep | GateEnd | None:
    """Return the next step in one place of a block, or the gate's end; None if it is done."""
    tried = [start for start in starts if _same_place(start.step, step)]
    own = [start for start in tried if not start.step.control]
    if any(start.outcome is Outcome.OK for start in own):
        return None
    failed = [start for start in own if start.outcome is Outcome.FAULT]
    if disturbed := _disturbed_end(own):
        return disturbed
    if len(failed) < ATTEMPTS:
        return replace(step, attempt=len(own) + 1)
    if step.side == "A":
        error = f"A, the baseline, is broken itself on {step.topology}: {failed[-1].why}"
        return GateEnd(verdict=GateVerdict.ERROR, error=error)
    controls = [start for start in tried if start.step.control]
    return _control(replace(step, side="A", control=True), controls, failed[-1])


def _disturbed_end(tried: Sequence[GateStart]) -> GateEnd | None:
    """Return why a gate is over if a start was disturbed repeatedly; None if it was not.

    A disturbed start says nothing about its stack: it is not one of those that failed.
    """
    disturbed = [start for start in tried if start.outcome is Outcome.TROUBLE]
    if len(disturbed) < ATTEMPTS:
        return None
    last = disturbed[-1]
    error = f"a start of {last.step.topology} was disturbed {len(disturbed)} times: {last.why}"
    return GateEnd(verdict=GateVerdict.ERROR, error=error)


def _control(
    step: GateStep, controls: Sequence[GateStart], failed: GateStart
) -> GateStep | GateEnd:
    """Return a control start of A after failed starts of B, or why the gate is over after it.

    :param step: the control.
    :param controls: controls so far.
    :param failed: the last failed start of B.
    """
    where = step.topology
    if disturbed := _disturbed_end(controls):
        return disturbed
    if all(start.outcome is Outcome.TROUBLE for start in controls):
        return replace(step, attempt=len(controls) + 1)
    control = controls[-1]
    if control.outcome is Outcome.OK:
        fault = f"B fails on {where} twice in a row, where A works before and after: {failed.why}"
        return GateEnd(verdict=GateVerdict.NO_GO, faults=(fault,))
    error = f"both stacks fail on {where}; B: {failed.why}; A right after it: {control.why}"
    return GateEnd(verdict=GateVerdict.ERROR, error=error)


def _same_place(one: GateStep, other: GateStep) -> bool:
    names = ("swap", "block", "place", "topology")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _often_failed(starts: Sequence[GateStart]) -> Iterator[str]:
    """Yield a sentence if B failed repeatedly, though second attempts worked, and A never did."""
    failed = [start for start in starts if start.outcome is Outcome.FAULT]
    of_b = [start for start in failed if start.step.side == "B"]
    if len(of_b) >= MIN_FAILED_STARTS and len(of_b) == len(failed):
        yield (
            f"{len(of_b)} starts of B failed and none of A, though each worked when tried again; "
            f"the last: {of_b[-1].why}"
        )


def block_of(starts: Sequence[GateStart], runs: Runs, block: int) -> Block:
    """Return the values of a block whose starts are all OK."""
    places: dict[int, dict[Key, dict[str, float]]] = {place: {} for place in range(4)}
    for start in starts:
        step = start.step
        if step.block == block and start.outcome is Outcome.OK and not step.control:
            places[step.place] |= values_of(runs[start.folder])
    sides: dict[str, list[Start]] = {"A": [], "B": []}
    for place, side in enumerate(order_of(block)):
        sides[side].append(places[place])
    a, b = ((one, other) for one, other in sides.values())
    return Block(baseline=a, candidate=b)


def values_of(records: Sequence[Record]) -> dict[Key, dict[str, float]]:
    """Return the values of runs that may be judged, by cell and metric."""
    return {
        (record.topology, record.workload.id): {
            name: value
            for name in record.metrics
            if (value := record.value(name)) is not None and value > 0
        }
        for record in records
    }
