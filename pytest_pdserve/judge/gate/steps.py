"""What a gate does next, by all that it has measured so far. Pure.

Nothing but the list of finished starts decides, so that an interrupted gate goes on with the same
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
"""Times that a start is tried before its stack counts as broken."""
MOST_FAILED = 3
"""Failed starts of B, each of which worked when tried again, that are a fault if none of A failed.
If a start of either is as likely to fail, three of B and none of A are one case in eight."""
Runs = Mapping[str, Sequence[Record]]
"""Records by folder of the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEnd:
    """Why a gate is over."""

    verdict: GateVerdict
    """What it says."""
    faults: tuple[str, ...] = ()
    """What B breaks that A does not."""
    error: str | None = None
    """Why the stacks cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateProgress:
    """Where a gate stands."""

    step: GateStep | None
    """What it does next; None if it is over."""
    workloads: tuple[str, ...] = ()
    """Ids of the loads of that step."""
    end: GateEnd | None = None
    """Why it is over; None if it is not."""
    judgement: GateJudgement | None = None
    """What the finished blocks say; None before the first."""
    blocks: tuple[Block, ...] = ()
    """Finished blocks."""

    @property
    def begins_block(self) -> bool:
        """Whether the next step is the first of a block."""
        step = self.step
        return step is not None and step.place == 0 and step.attempt == 1 and not step.control


def next_step(
    starts: Sequence[GateStart],
    runs: Runs,
    *,
    cells: Sequence[GateCells],
    policy: GatePolicy,
    components: Sequence[str],
) -> GateProgress:
    """Return what a gate does next.

    :param starts: finished starts of the gate itself, in order.
    :param cells: all that it measures.
    :param components: what differs between the stacks.
    """
    from pytest_pdserve.judge.gate.rule import judge_gate

    wanted = [*cells]
    blocks: list[Block] = []
    judgement = None
    while True:
        found = within(starts, len(blocks), wanted)
        if isinstance(found, GateEnd):
            return GateProgress(step=None, end=found, judgement=judgement, blocks=tuple(blocks))
        if found is not None:
            loads = next(each.workloads for each in wanted if each.topology == found.topology)
            return GateProgress(
                step=found, workloads=loads, judgement=judgement, blocks=tuple(blocks)
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

    :param starts: of its finished blocks.
    """
    faults = (*judge_answers(starts, components).faults, *_often_failed(starts))
    if faults:
        return GateEnd(verdict=GateVerdict.NO_GO, faults=faults)
    if judgement.verdict is None:
        return None
    return GateEnd(verdict=judgement.verdict)


def _wanted(cells: Sequence[GateCells], keys: Sequence[Key]) -> Iterator[GateCells]:
    """Yield the cells that the next block measures."""
    for each in cells:
        left = tuple(name for name in each.workloads if (each.topology, name) in {*keys})
        if left:
            yield replace(each, workloads=left)


def within(
    starts: Sequence[GateStart], block: int, wanted: Sequence[GateCells], swap: str = ""
) -> GateStep | GateEnd | None:
    """Return the next step of a block, or why the gate is over; None if the block is complete.

    :param swap: as of :attr:`.GateStep.swap`.
    """
    for place, side in enumerate(order_of(block)):
        for each in wanted:
            step = GateStep(block=block, place=place, side=side, topology=each.topology, swap=swap)
            found = _at(step, starts)
            if found is not None:
                return found
    return None


def _at(step: GateStep, starts: Sequence[GateStart]) -> GateStep | GateEnd | None:
    """Return what is to be done in one place of a block; None if it is done."""
    tried = [each for each in starts if _same_place(each.step, step)]
    own = [each for each in tried if not each.step.control]
    if any(each.outcome is Outcome.OK for each in own):
        return None
    if len(own) < ATTEMPTS:
        return replace(step, attempt=len(own) + 1)
    last = own[-1]
    if any(each.outcome is Outcome.TROUBLE for each in own):
        why = next(each.why for each in reversed(own) if each.outcome is Outcome.TROUBLE)
        error = f"{step.topology} was disturbed {len(own)} times in a row: {why}"
        return GateEnd(verdict=GateVerdict.ERROR, error=error)
    if step.side == "A":
        error = f"A, the baseline, is broken itself on {step.topology}: {last.why}"
        return GateEnd(verdict=GateVerdict.ERROR, error=error)
    controls = [each for each in tried if each.step.control]
    if not controls:
        return replace(step, side="A", control=True)
    return _of_control(controls[-1], last)


def _of_control(control: GateStart, failed: GateStart) -> GateEnd:
    """Return why a gate is over after a start of A beside one of B that failed twice."""
    where = control.step.topology
    if control.outcome is Outcome.OK:
        fault = f"B fails on {where} twice in a row, where A works before and after: {failed.why}"
        return GateEnd(verdict=GateVerdict.NO_GO, faults=(fault,))
    error = f"both stacks fail on {where}; B: {failed.why}; A right after it: {control.why}"
    return GateEnd(verdict=GateVerdict.ERROR, error=error)


def _same_place(one: GateStep, other: GateStep) -> bool:
    names = ("swap", "block", "place", "topology")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _often_failed(starts: Sequence[GateStart]) -> Iterator[str]:
    """Yield that B fails again and again, though a second try works, and A never does."""
    failed = [each for each in starts if each.outcome is Outcome.FAULT]
    of_b = [each for each in failed if each.step.side == "B"]
    if len(of_b) >= MOST_FAILED and len(of_b) == len(failed):
        yield (
            f"{len(of_b)} starts of B failed and none of A, though each worked when tried again; "
            f"the last: {of_b[-1].why}"
        )


def block_of(starts: Sequence[GateStart], runs: Runs, block: int) -> Block:
    """Return the values of a block whose starts have all ended well."""
    places: dict[int, dict[Key, dict[str, float]]] = {place: {} for place in range(4)}
    for each in starts:
        step = each.step
        if step.block == block and each.outcome is Outcome.OK and not step.control:
            places[step.place] |= values_of(runs[each.folder])
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
