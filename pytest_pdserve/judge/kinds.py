"""One small function per kind of claim: it compares sides cell by cell, and says the numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.judge.comparisons import describe
from pytest_pdserve.judge.comparisons import difference_of
from pytest_pdserve.judge.comparisons import ratio_of
from pytest_pdserve.judge.comparisons import value_of
from pytest_pdserve.judge.pairs import Outcome
from pytest_pdserve.judge.pairs import Region
from pytest_pdserve.judge.pairs import judge_point
from pytest_pdserve.judge.sides import Lookup
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.sides import combine
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.claim_parts import Regime
from pytest_pdserve.values.claim_parts import Relation
from pytest_pdserve.values.quantities import quantities
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sweep import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison in one cell."""

    cell: str
    """The cell's name, in the article's lengths."""
    workload: str
    """Its workload id."""
    status: Status
    """Whether it is as claimed; NOT JUDGED if a side is missing or unusable."""
    text: str
    """The numbers, or what is missing."""
    pairs: int = 0
    """Pairs of runs that it rests on; 0 is a point."""
    is_violated: bool = False
    """Whether it contradicts the claim by more than noise explains, confirmed or not."""
    wants_pair: tuple[Key, ...] = ()
    """Cells of which one more run would tell whether the claim FAILs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimContext:
    """What a kind looks at."""

    regime: Regime
    """Of the claim."""
    cells: Sequence[Point]
    """Cells in the regime."""
    sweep: Sequence[Point]
    """All cells."""
    lookup: Lookup
    """Finds sides."""


Findings = Iterator[Finding]
Judge = Callable[[Relation, ClaimContext], Findings]
Say = Callable[[Side, Side, Outcome], str]


def _below(relation: Relation, context: ClaimContext) -> Findings:
    return _each_other(relation, context, _region("<", relation.margin), _limit(relation, "<"))


def _above(relation: Relation, context: ClaimContext) -> Findings:
    return _each_other(relation, context, _region(">", relation.margin), _limit(relation, ">"))


def _best(relation: Relation, context: ClaimContext) -> Findings:
    return _below(relation, context) if _lower(relation) else _above(relation, context)


def _ratio(relation: Relation, context: ClaimContext) -> Findings:
    def say(subject: Side, other: Side, found: Outcome) -> str:
        claimed = f"claimed {_bounds(relation)} times {other.topology}"
        return f"{_value(subject)}, {claimed} ({_amount(other)}, {_times(found)})"

    return _each_other(relation, context, Region.of(relation.bounds), say)


def _difference(relation: Relation, context: ClaimContext) -> Findings:
    region = Region.of(relation.bounds)
    for point, subject, other in _facing(relation, context):
        lost = _lost(point, subject, other)
        if lost:
            yield lost
            continue
        found = difference_of(subject, other, region)
        unit = quantities()[relation.metric].unit
        claimed = f"claimed {_bounds(relation)} {unit} above {other.topology}"
        apart = f"difference {found.value:.6g} {unit}{describe(found, digits=6, unit=unit)}"
        text = f"{_value(subject)}, {claimed} ({_amount(other)}, {apart})"
        yield _finding(point, found, text, subject, other)


def _within(relation: Relation, context: ClaimContext) -> Findings:
    region = Region.of(relation.bounds)
    for point in context.cells:
        for topology in relation.subjects:
            side = context.lookup(topology, point.workload, relation.metric)
            lost = _lost(point, side)
            if lost:
                yield lost
                continue
            found = value_of(side, region)
            claimed = f"claimed {_bounds(relation)} {quantities()[relation.metric].unit}"
            text = f"{_value(side)}{describe(found, digits=6)}, {claimed}"
            yield _finding(point, found, text, side)


def _rank(relation: Relation, context: ClaimContext) -> Findings:
    for point in context.cells:
        sides = [context.lookup(name, point.workload, relation.metric) for name in relation.named]
        lost = _lost(point, *sides)
        if lost:
            yield lost
            continue
        subject = sides[0]
        signs = (">", "<") if _lower(relation) else ("<", ">")
        ahead, behind = (
            [ratio_of(subject, other, _region(sign, 0.0)) for other in sides[1:]] for sign in signs
        )
        judge = _rank_of_runs if subject.runs else _rank_read_off
        rank = judge(ahead, behind, Region.of(relation.bounds))
        yield _finding(point, rank, _rank_text(relation, sides, rank), *sides)


def _rank_read_off(ahead: Sequence[Outcome], behind: Sequence[Outcome], region: Region) -> Outcome:
    """The rank of a subject among readings; a tie is neither ahead nor behind.

    :param ahead: of each other, whether it is ahead of the subject.
    :param behind: of each other, whether it is behind.
    """
    first = 1 + sum(other.status is Status.PASS for other in ahead)
    last = 1 + len(ahead) - sum(other.status is Status.PASS for other in behind)
    return judge_point(first, region, low=first, high=last)


def _rank_of_runs(ahead: Sequence[Outcome], behind: Sequence[Outcome], region: Region) -> Outcome:
    """The rank of a subject in tonight's pairs; the parameters are as above.

    It FAILs if no rank is admitted that noise leaves open.
    """
    first = 1 + sum(other.status is Status.PASS for other in ahead)
    last = 1 + len(ahead) - sum(other.status is Status.PASS for other in behind)

    def is_excluded(is_clear: Callable[[Outcome], bool]) -> bool:
        best, worst = 1 + sum(map(is_clear, behind)), 1 + len(ahead) - sum(map(is_clear, ahead))
        return region.excludes(best, worst)

    confirmed = is_excluded(lambda other: other.status is Status.FAIL)
    status = Status.FAIL if confirmed else Status.INCONCLUSIVE
    return Outcome(
        status=Status.PASS if region.holds(first, last) else status,
        value=first,
        low=first,
        high=last,
        pairs=max(other.pairs for other in ahead),
        wants_pair=not confirmed and is_excluded(lambda other: other.is_violated),
    )


def _rank_text(relation: Relation, sides: Sequence[Side], rank: Outcome) -> str:
    first, last = round(rank.low), round(rank.high)
    order = sorted(sides, key=lambda side: side.value or 0.0, reverse=not _lower(relation))
    row = ", ".join(f"{side.topology} {side.value:.6g}" for side in order)
    said = f"{first}" if first == last else f"{first} to {last}"
    doubt = ""
    if rank.pairs and rank.status is Status.INCONCLUSIVE:
        doubt = "; no more clearly than noise explains"
        if rank.wants_pair:
            doubt = f"; in {rank.pairs} of {RULE.max_runs} pairs"
    return (
        f"{_value(sides[0])}, rank {said} of {len(sides)}, claimed rank {_bounds(relation)} "
        f"(best first: {row}{doubt})"
    )


def _monotone(relation: Relation, context: ClaimContext) -> Findings:
    cells = sorted(context.cells, key=context.regime.axis)
    sign = ">" if relation.direction == "rises" else "<"
    if len(cells) < 2:
        yield _nowhere(cells[0], "a sweep needs two cells, and only this one lies in the regime")
        return
    for topology in relation.subjects:
        for earlier, later in itertools.pairwise(cells):
            before = context.lookup(topology, earlier.workload, relation.metric)
            after = context.lookup(topology, later.workload, relation.metric)
            lost = _lost(later, before, after)
            if lost:
                yield lost
                continue
            region = _region(sign, relation.margin)
            found = ratio_of(after, before, region)
            before = replace(before, topology=f"at {earlier.name}")
            text = _limit(relation, sign)(after, before, found)
            yield _finding(later, found, text, after, before)


def _crossover(relation: Relation, context: ClaimContext) -> Findings:
    points = {context.regime.axis(point): point for point in context.cells}
    better, worse = ("<", ">") if _lower(relation) else (">", "<")
    asked = [*((p, better) for p in relation.better_at), *((p, worse) for p in relation.worse_at)]
    for length, sign in asked:
        point = points.get(length)
        if point is None:
            yield _nowhere(context.cells[0], f"no cell of the regime lies at length {length}")
            continue
        there = replace(context, cells=[point])
        region = _region(sign, relation.margin)
        yield from _each_other(relation, there, region, _limit(relation, sign))


def _spread(relation: Relation, context: ClaimContext) -> Findings:
    regime = relation.versus
    compared = [w for w in context.sweep if regime is not None and regime.admits(w)]
    if not compared:
        yield _nowhere(context.cells[0], "no cell to compare with lies in 'versus'")
        return
    sign = "<" if relation.direction == "smaller" else ">"
    region = _region(sign, relation.margin)
    for point, than in itertools.product(context.cells, compared):
        side, other = (_apart(relation, context, each) for each in (point, than))
        lost = _lost(point, side) or _lost(than, other)
        if lost:
            yield lost
            continue
        found = ratio_of(side, other, region)
        there = replace(other, topology=f"at {than.name}")
        text = f"spread of {_limit(relation, sign)(side, there, found)}"
        yield _finding(point, found, text, side, other)


def _apart(relation: Relation, context: ClaimContext, point: Point) -> Side:
    """How far the topologies lie apart in one cell, as a side of its own."""
    sides = [context.lookup(name, point.workload, relation.metric) for name in relation.subjects]
    lost = next((side for side in sides if side.missing), None)
    if lost:
        return replace(lost, value=None, why=f"cannot be used: {lost.missing}")
    is_ratio = relation.measure == "ratio"

    def measure(values: tuple[float, ...]) -> float:
        high, low = max(values), min(values)
        return high / low if is_ratio else max(high - low, 1e-12)

    values = [side.value for side in sides if side.value is not None]
    off, name = sum(sorted(side.uncertainty for side in sides)[-2:]), relation.metric
    if is_ratio:
        off, name = max(values) / min(values) * off / min(values), f"{name}, largest by least,"
    apart = combine(sides[0], sides, measure)
    return replace(
        apart,
        metric=name,
        topology=", ".join(relation.subjects),
        cells=tuple(cell for side in sides for cell in side.cells),
        uncertainty=off,
        # A gap is off by the noise of what it lies between, which can be many times the gap.
        floor=apart.floor if is_ratio else apart.floor * max(values) / (apart.value or math.nan),
    )


JUDGES: Mapping[str, Judge] = {
    "below": _below,
    "above": _above,
    "lowest": _below,
    "highest": _above,
    "best": _best,
    "ratio": _ratio,
    "difference": _difference,
    "within": _within,
    "rank": _rank,
    "monotone": _monotone,
    "crossover": _crossover,
    "spread": _spread,
}
"""Who judges which kind; a joint claim is judged relation by relation."""


def _each_other(relation: Relation, context: ClaimContext, region: Region, say: Say) -> Findings:
    for point, subject, other in _facing(relation, context):
        lost = _lost(point, subject, other)
        if lost:
            yield lost
            continue
        found = ratio_of(subject, other, region)
        yield _finding(point, found, say(subject, other, found), subject, other)


def _facing(relation: Relation, context: ClaimContext) -> Iterator[tuple[Point, Side, Side]]:
    for point in context.cells:
        subject = context.lookup(relation.subjects[0], point.workload, relation.metric)
        for name in relation.others:
            yield point, subject, context.lookup(name, point.workload, relation.metric)


def _region(sign: str, margin: float) -> Region:
    if sign == "<":
        return Region(high=1 - margin, strict=True)
    return Region(low=1 + margin, strict=True)


def _lower(relation: Relation) -> bool:
    return quantities()[relation.metric].better == "lower"


def _lost(point: Point, *sides: Side) -> Finding | None:
    missing = next((side.missing for side in sides if side.missing), None)
    return _nowhere(point, missing) if missing else None


def _nowhere(point: Point, text: str) -> Finding:
    return Finding(cell=point.name, workload=point.id, status=Status.NOT_JUDGED, text=text)


def _finding(point: Point, found: Outcome, text: str, *sides: Side) -> Finding:
    cells = tuple(dict.fromkeys(cell for side in sides for cell in side.cells))
    return Finding(
        cell=point.name,
        workload=point.id,
        status=found.status,
        text=text,
        pairs=found.pairs,
        is_violated=found.is_violated,
        wants_pair=cells if found.wants_pair else (),
    )


def _limit(relation: Relation, sign: str) -> Say:
    def say(subject: Side, other: Side, found: Outcome) -> str:
        factor = 1 - relation.margin if sign == "<" else 1 + relation.margin
        limit = f"claimed {sign} {(other.value or math.nan) * factor:.6g} {_unit(other)}"
        against = f"{_amount(other)}, {_times(found)}, margin {relation.margin * 100:g} %"
        return f"{_value(subject)}, {limit} ({other.topology} {against})"

    return say


def _unit(side: Side) -> str:
    metric = quantities().get(side.metric)
    return metric.unit if metric else "times"


def _amount(side: Side) -> str:
    return f"{side.value:.6g} {_unit(side)}"


def _value(side: Side) -> str:
    return f"{side.metric} of {side.topology} = {_amount(side)}"


def _times(found: Outcome) -> str:
    return f"{found.value:.4g} times{describe(found)}"


def _bounds(relation: Relation) -> str:
    low, high = relation.bounds
    if math.isinf(high):
        return f"at least {low:g}"
    if math.isinf(low):
        return f"at most {high:g}"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
