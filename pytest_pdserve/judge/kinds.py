"""One function per kind of claim: it compares sides cell by cell and describes the numbers."""

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
class ClaimComparison:
    """One comparison of sides in one cell."""

    cell: str
    """The cell's name, made of the article's lengths."""
    workload: str
    """Workload id of the cell."""
    status: Status
    """PASS if it is as claimed; NOT JUDGED if a side is missing or cannot be used."""
    text: str
    """The numbers, or what is missing."""
    pairs: int = 0
    """Number of pairs of runs; 0 for a value that was read off a plot."""
    is_violated: bool = False
    """True if it contradicts the claim by more than noise explains, confirmed or not."""
    wants_pair: tuple[Key, ...] = ()
    """Cells that need one more run to decide whether the claim FAILs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimContext:
    """The cells and values that a claim is judged by."""

    regime: Regime
    """Regime of the claim."""
    cells: Sequence[Point]
    """Cells of the sweep within the regime."""
    sweep: Sequence[Point]
    """All cells of the sweep."""
    lookup: Lookup


Comparisons = Iterator[ClaimComparison]
RelationJudge = Callable[[Relation, ClaimContext], Comparisons]
DescribePair = Callable[[Side, Side, Outcome], str]


def _below(relation: Relation, context: ClaimContext) -> Comparisons:
    return _compare_with_others(
        relation, context, _region("<", relation.margin), _describe_with_limit(relation, "<")
    )


def _above(relation: Relation, context: ClaimContext) -> Comparisons:
    return _compare_with_others(
        relation, context, _region(">", relation.margin), _describe_with_limit(relation, ">")
    )


def _best(relation: Relation, context: ClaimContext) -> Comparisons:
    return _below(relation, context) if _lower_is_better(relation) else _above(relation, context)


def _ratio(relation: Relation, context: ClaimContext) -> Comparisons:
    def describe_pair(subject: Side, other: Side, outcome: Outcome) -> str:
        claimed = f"claimed {_bounds(relation)} times {other.topology}"
        return f"{_value(subject)}, {claimed} ({_amount(other)}, {_times(outcome)})"

    return _compare_with_others(relation, context, Region.of(relation.bounds), describe_pair)


def _difference(relation: Relation, context: ClaimContext) -> Comparisons:
    region = Region.of(relation.bounds)
    for point, subject, other in _side_pairs(relation, context):
        missing = _missing_side(point, subject, other)
        if missing:
            yield missing
            continue
        outcome = difference_of(subject, other, region)
        unit = quantities()[relation.metric].unit
        claimed = f"claimed {_bounds(relation)} {unit} above {other.topology}"
        difference = (
            f"difference {outcome.value:.6g} {unit}{describe(outcome, digits=6, unit=unit)}"
        )
        text = f"{_value(subject)}, {claimed} ({_amount(other)}, {difference})"
        yield _comparison(point, outcome, text, subject, other)


def _within(relation: Relation, context: ClaimContext) -> Comparisons:
    region = Region.of(relation.bounds)
    for point in context.cells:
        for topology in relation.subjects:
            side = context.lookup(topology, point.workload, relation.metric)
            missing = _missing_side(point, side)
            if missing:
                yield missing
                continue
            outcome = value_of(side, region)
            claimed = f"claimed {_bounds(relation)} {quantities()[relation.metric].unit}"
            text = f"{_value(side)}{describe(outcome, digits=6)}, {claimed}"
            yield _comparison(point, outcome, text, side)


def _rank(relation: Relation, context: ClaimContext) -> Comparisons:
    for point in context.cells:
        sides = [context.lookup(name, point.workload, relation.metric) for name in relation.named]
        missing = _missing_side(point, *sides)
        if missing:
            yield missing
            continue
        subject = sides[0]
        signs = (">", "<") if _lower_is_better(relation) else ("<", ">")
        ahead, behind = (
            [ratio_of(subject, other, _region(sign, 0.0)) for other in sides[1:]] for sign in signs
        )
        judge = _rank_of_runs if subject.runs else _rank_read_off
        rank = judge(ahead, behind, Region.of(relation.bounds))
        yield _comparison(point, rank, _rank_text(relation, sides, rank), *sides)


def _rank_read_off(ahead: Sequence[Outcome], behind: Sequence[Outcome], region: Region) -> Outcome:
    """Return the rank of a subject among readings; a tie is neither ahead nor behind.

    :param ahead: for each other topology, whether it is ahead of the subject.
    :param behind: for each other topology, whether it is behind the subject.
    """
    first = 1 + sum(other.status is Status.PASS for other in ahead)
    last = 1 + len(ahead) - sum(other.status is Status.PASS for other in behind)
    return judge_point(first, region, low=first, high=last)


def _rank_of_runs(ahead: Sequence[Outcome], behind: Sequence[Outcome], region: Region) -> Outcome:
    """Return the rank of a subject in tonight's pairs; parameters as of :func:`_rank_read_off`.

    It FAILs if the claim admits none of the ranks that are possible within noise.
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
    order = sorted(
        sides, key=lambda side: side.value or 0.0, reverse=not _lower_is_better(relation)
    )
    row = ", ".join(f"{side.topology} {side.value:.6g}" for side in order)
    range_text = f"{first}" if first == last else f"{first} to {last}"
    uncertainty = ""
    if rank.pairs and rank.status is Status.INCONCLUSIVE:
        uncertainty = "; no more clearly than noise explains"
        if rank.wants_pair:
            uncertainty = f"; in {rank.pairs} of {RULE.max_runs} pairs"
    return (
        f"{_value(sides[0])}, rank {range_text} of {len(sides)}, claimed rank {_bounds(relation)} "
        f"(best first: {row}{uncertainty})"
    )


def _monotone(relation: Relation, context: ClaimContext) -> Comparisons:
    cells = sorted(context.cells, key=context.regime.axis)
    sign = ">" if relation.direction == "rises" else "<"
    if len(cells) < 2:
        yield _not_judged(cells[0], "a sweep needs two cells, and only this one lies in the regime")
        return
    for topology in relation.subjects:
        for earlier, later in itertools.pairwise(cells):
            before = context.lookup(topology, earlier.workload, relation.metric)
            after = context.lookup(topology, later.workload, relation.metric)
            missing = _missing_side(later, before, after)
            if missing:
                yield missing
                continue
            region = _region(sign, relation.margin)
            outcome = ratio_of(after, before, region)
            before = replace(before, topology=f"at {earlier.name}")
            text = _describe_with_limit(relation, sign)(after, before, outcome)
            yield _comparison(later, outcome, text, after, before)


def _crossover(relation: Relation, context: ClaimContext) -> Comparisons:
    points = {context.regime.axis(point): point for point in context.cells}
    better, worse = ("<", ">") if _lower_is_better(relation) else (">", "<")
    lengths = [*((p, better) for p in relation.better_at), *((p, worse) for p in relation.worse_at)]
    for length, sign in lengths:
        point = points.get(length)
        if point is None:
            yield _not_judged(context.cells[0], f"no cell of the regime lies at length {length}")
            continue
        in_cell = replace(context, cells=[point])
        region = _region(sign, relation.margin)
        yield from _compare_with_others(
            relation, in_cell, region, _describe_with_limit(relation, sign)
        )


def _spread(relation: Relation, context: ClaimContext) -> Comparisons:
    regime = relation.versus
    compared = [w for w in context.sweep if regime is not None and regime.admits(w)]
    if not compared:
        yield _not_judged(context.cells[0], "no cell to compare with lies in 'versus'")
        return
    sign = "<" if relation.direction == "smaller" else ">"
    region = _region(sign, relation.margin)
    for point, than in itertools.product(context.cells, compared):
        side, other = (_spread_side(relation, context, cell) for cell in (point, than))
        missing = _missing_side(point, side) or _missing_side(than, other)
        if missing:
            yield missing
            continue
        outcome = ratio_of(side, other, region)
        at_other = replace(other, topology=f"at {than.name}")
        text = f"spread of {_describe_with_limit(relation, sign)(side, at_other, outcome)}"
        yield _comparison(point, outcome, text, side, other)


def _spread_side(relation: Relation, context: ClaimContext, point: Point) -> Side:
    """Return the spread of the topologies in one cell, as a side."""
    sides = [context.lookup(name, point.workload, relation.metric) for name in relation.subjects]
    missing = next((side for side in sides if side.missing), None)
    if missing:
        return replace(missing, value=None, why=f"cannot be used: {missing.missing}")
    is_ratio = relation.measure == "ratio"

    def measure(values: tuple[float, ...]) -> float:
        high, low = max(values), min(values)
        return high / low if is_ratio else max(high - low, 1e-12)

    values = [side.value for side in sides if side.value is not None]
    uncertainty, name = sum(sorted(side.uncertainty for side in sides)[-2:]), relation.metric
    if is_ratio:
        uncertainty, name = (
            max(values) / min(values) * uncertainty / min(values),
            f"{name}, largest by least,",
        )
    spread = combine(sides[0], sides, measure)
    return replace(
        spread,
        metric=name,
        topology=", ".join(relation.subjects),
        cells=tuple(cell for side in sides for cell in side.cells),
        uncertainty=uncertainty,
        # A difference has the noise of both values, which can be many times the difference.
        floor=spread.floor if is_ratio else spread.floor * max(values) / (spread.value or math.nan),
    )


JUDGES: Mapping[str, RelationJudge] = {
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
"""The function that judges each kind of claim; a joint claim is judged relation by relation."""


def _compare_with_others(
    relation: Relation, context: ClaimContext, region: Region, describe_pair: DescribePair
) -> Comparisons:
    for point, subject, other in _side_pairs(relation, context):
        missing = _missing_side(point, subject, other)
        if missing:
            yield missing
            continue
        outcome = ratio_of(subject, other, region)
        yield _comparison(point, outcome, describe_pair(subject, other, outcome), subject, other)


def _side_pairs(relation: Relation, context: ClaimContext) -> Iterator[tuple[Point, Side, Side]]:
    for point in context.cells:
        subject = context.lookup(relation.subjects[0], point.workload, relation.metric)
        for name in relation.others:
            yield point, subject, context.lookup(name, point.workload, relation.metric)


def _region(sign: str, margin: float) -> Region:
    if sign == "<":
        return Region(high=1 - margin, strict=True)
    return Region(low=1 + margin, strict=True)


def _lower_is_better(relation: Relation) -> bool:
    return quantities()[relation.metric].better == "lower"


def _missing_side(point: Point, *sides: Side) -> ClaimComparison | None:
    missing = next((side.missing for side in sides if side.missing), None)
    return _not_judged(point, missing) if missing else None


def _not_judged(point: Point, text: str) -> ClaimComparison:
    return ClaimComparison(cell=point.name, workload=point.id, status=Status.NOT_JUDGED, text=text)


def _comparison(point: Point, outcome: Outcome, text: str, *sides: Side) -> ClaimComparison:
    cells = tuple(dict.fromkeys(cell for side in sides for cell in side.cells))
    return ClaimComparison(
        cell=point.name,
        workload=point.id,
        status=outcome.status,
        text=text,
        pairs=outcome.pairs,
        is_violated=outcome.is_violated,
        wants_pair=cells if outcome.wants_pair else (),
    )


def _describe_with_limit(relation: Relation, sign: str) -> DescribePair:
    def describe_pair(subject: Side, other: Side, outcome: Outcome) -> str:
        factor = 1 - relation.margin if sign == "<" else 1 + relation.margin
        limit = f"claimed {sign} {(other.value or math.nan) * factor:.6g} {_unit(other)}"
        against = f"{_amount(other)}, {_times(outcome)}, margin {relation.margin * 100:g} %"
        return f"{_value(subject)}, {limit} ({other.topology} {against})"

    return describe_pair


def _unit(side: Side) -> str:
    metric = quantities().get(side.metric)
    return metric.unit if metric else "times"


def _amount(side: Side) -> str:
    return f"{side.value:.6g} {_unit(side)}"


def _value(side: Side) -> str:
    return f"{side.metric} of {side.topology} = {_amount(side)}"


def _times(outcome: Outcome) -> str:
    return f"{outcome.value:.4g} times{describe(outcome)}"


def _bounds(relation: Relation) -> str:
    low, high = relation.bounds
    if math.isinf(high):
        return f"at least {low:g}"
    if math.isinf(low):
        return f"at most {high:g}"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
