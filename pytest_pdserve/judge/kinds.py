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
from statistics import fmean

from pytest_pdserve.judge.ratios import LEAST_SD
from pytest_pdserve.judge.ratios import Outcome
from pytest_pdserve.judge.ratios import PairSpread
from pytest_pdserve.judge.ratios import Region
from pytest_pdserve.judge.ratios import judge_point
from pytest_pdserve.judge.ratios import judge_ratios
from pytest_pdserve.judge.ratios import judge_sample
from pytest_pdserve.judge.sides import Look
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.spreads import pair_spread
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.claim_parts import Regime
from pytest_pdserve.values.claim_parts import Relation
from pytest_pdserve.values.quantities import quantities
from pytest_pdserve.values.sweep import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison in one cell."""

    cell: str
    """The cell's name, in the article's lengths."""
    workload: str
    """Its workload id."""
    status: Status
    """Whether it is as claimed."""
    text: str
    """The numbers."""
    pairs: int = 0
    """Pairs of runs that it rests on; 0 is a point."""
    several: bool = False
    """Whether a side of a point had several runs all the same."""
    missing: bool = False
    """Whether a side was missing or unusable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a kind looks at."""

    regime: Regime
    """Of the claim."""
    cells: Sequence[Point]
    """Cells in the regime."""
    sweep: Sequence[Point]
    """All cells."""
    look: Look
    """Finds sides."""


Findings = Iterator[Finding]
Judge = Callable[[Relation, Scene], Findings]
Say = Callable[[Side, Side, Outcome], str]


def _below(relation: Relation, scene: Scene) -> Findings:
    return _each_other(relation, scene, _region("<", relation.margin), _limit(relation, "<"))


def _above(relation: Relation, scene: Scene) -> Findings:
    return _each_other(relation, scene, _region(">", relation.margin), _limit(relation, ">"))


def _best(relation: Relation, scene: Scene) -> Findings:
    return _below(relation, scene) if _lower(relation) else _above(relation, scene)


def _ratio(relation: Relation, scene: Scene) -> Findings:
    def say(subject: Side, other: Side, found: Outcome) -> str:
        claimed = f"claimed {_bounds(relation)} times {other.topology}"
        return f"{_value(subject)}, {claimed} ({_amount(other)}, {_times(found)})"

    return _each_other(relation, scene, Region.of(relation.bounds), say)


def _difference(relation: Relation, scene: Scene) -> Findings:
    region = Region.of(relation.bounds)
    for point, subject, other in _facing(relation, scene):
        lost = _lost(point, subject, other)
        if lost:
            yield lost
            continue
        found = _minus(subject, other, region, tests=_count(relation, scene))
        unit = quantities()[relation.metric].unit
        claimed = f"claimed {_bounds(relation)} {unit} above {other.topology}"
        apart = f"difference {found.value:.6g}{_interval(found, 6)} {unit}"
        text = f"{_value(subject)}, {claimed} ({_amount(other)}, {apart})"
        yield _finding(point, found, text, subject, other)


def _within(relation: Relation, scene: Scene) -> Findings:
    region = Region.of(relation.bounds)
    for point in scene.cells:
        for topology in relation.subjects:
            side = scene.look(topology, point.workload, relation.metric)
            lost = _lost(point, side)
            if lost:
                yield lost
                continue
            found = _alone(side, region, tests=_count(relation, scene))
            claimed = f"claimed {_bounds(relation)} {quantities()[relation.metric].unit}"
            text = f"{_value(side)}{_interval(found, 6)}, {claimed}"
            yield _finding(point, found, text, side, side)


def _rank(relation: Relation, scene: Scene) -> Findings:
    for point in scene.cells:
        sides = [scene.look(name, point.workload, relation.metric) for name in relation.named]
        lost = _lost(point, *sides)
        if lost:
            yield lost
            continue
        subject = sides[0]
        ahead = _region(">" if _lower(relation) else "<", 0.0)
        found = [_over(subject, other, ahead, tests=_count(relation, scene)) for other in sides[1:]]
        first = 1 + sum(outcome.status is Status.PASS for outcome in found)
        behind = (outcome.status is Status.FAIL and outcome.value != 1 for outcome in found)
        last = len(sides) - sum(behind)  # a tie is neither
        region = Region.of(relation.bounds)
        rank = judge_point(first, region, low=first, high=last)
        rank = replace(rank, pairs=max(outcome.pairs for outcome in found))
        yield _finding(point, rank, _rank_text(relation, sides, rank), *sides)


def _rank_text(relation: Relation, sides: Sequence[Side], rank: Outcome) -> str:
    first, last = round(rank.low), round(rank.high)
    order = sorted(sides, key=lambda side: side.value or 0.0, reverse=not _lower(relation))
    row = ", ".join(f"{side.topology} {side.value:.6g}" for side in order)
    said = f"{first}" if first == last else f"{first} to {last}"
    return (
        f"{_value(sides[0])}, rank {said} of {len(sides)}, claimed rank {_bounds(relation)} "
        f"(best first: {row})"
    )


def _monotone(relation: Relation, scene: Scene) -> Findings:
    cells = sorted(scene.cells, key=scene.regime.axis)
    sign = ">" if relation.direction == "rises" else "<"
    if len(cells) < 2:
        yield _nowhere(cells[0], "a sweep needs two cells, and only this one lies in the regime")
        return
    tests = (len(cells) - 1) * len(relation.subjects)
    for topology in relation.subjects:
        for earlier, later in itertools.pairwise(cells):
            before = scene.look(topology, earlier.workload, relation.metric)
            after = scene.look(topology, later.workload, relation.metric)
            lost = _lost(later, before, after)
            if lost:
                yield lost
                continue
            region = _region(sign, relation.margin)
            found = _over(after, before, region, tests=tests)
            before = replace(before, topology=f"at {earlier.name}")
            text = _limit(relation, sign)(after, before, found)
            yield _finding(later, found, text, after, before)


def _crossover(relation: Relation, scene: Scene) -> Findings:
    points = {scene.regime.axis(point): point for point in scene.cells}
    better, worse = ("<", ">") if _lower(relation) else (">", "<")
    asked = [*((p, better) for p in relation.better_at), *((p, worse) for p in relation.worse_at)]
    for length, sign in asked:
        point = points.get(length)
        if point is None:
            yield _nowhere(scene.cells[0], f"no cell of the regime lies at length {length}")
            continue
        there = replace(scene, cells=[point])
        region = _region(sign, relation.margin)
        yield from _each_other(relation, there, region, _limit(relation, sign))


def _spread(relation: Relation, scene: Scene) -> Findings:
    regime = relation.versus
    beside = [w for w in scene.sweep if regime is not None and regime.admits(w)]
    sides = {w.id: _apart(relation, scene, w) for w in (*scene.cells, *beside)}
    smaller = relation.direction == "smaller"
    lost = next((gap for w in beside if (gap := _lost(w, sides[w.id]))), None)
    if lost or not beside:
        yield lost or _nowhere(scene.cells[0], "no cell to compare with lies in 'versus'")
        return
    sign, pick = ("<", min) if smaller else (">", max)
    nearest = pick(beside, key=lambda w: sides[w.id].value or 0.0)
    other = replace(sides[nearest.id], topology=f"at {nearest.name}")
    region = _region(sign, relation.margin)
    for point in scene.cells:
        side = sides[point.id]
        lost = _lost(point, side)
        if lost:
            yield lost
            continue
        found = _over(side, other, region, tests=len(scene.cells))
        text = f"spread of {_limit(relation, sign)(side, other, found)}"
        yield _finding(point, found, text, side, other)


def _apart(relation: Relation, scene: Scene, point: Point) -> Side:
    """How far the topologies lie apart in one cell, as a side of its own."""
    sides = [scene.look(name, point.workload, relation.metric) for name in relation.subjects]
    lost = next((side for side in sides if side.missing), None)
    if lost:
        return replace(lost, value=None, why=f"cannot be used: {lost.missing}")

    def measure(values: Sequence[float]) -> float:
        high, low = max(values), min(values)
        return high / low if relation.measure == "ratio" else max(high - low, 1e-12)

    values = [side.value for side in sides if side.value is not None]
    runs: tuple[float, ...] = ()
    if len({len(side.runs) for side in sides}) == 1:
        runs = tuple(measure(run) for run in zip(*(side.runs for side in sides), strict=True))
    off, name = sum(sorted(side.uncertainty for side in sides)[-2:]), relation.metric
    if relation.measure == "ratio":
        off, name = measure(values) * off / min(values), f"{name}, largest by least,"
    return replace(
        sides[0],
        metric=name,
        topology=", ".join(relation.subjects),
        value=measure(values),
        runs=runs,
        nights=(),  # they say how far runs spread, not gaps between runs
        uncertainty=off,
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


def _each_other(relation: Relation, scene: Scene, region: Region, say: Say) -> Findings:
    for point, subject, other in _facing(relation, scene):
        lost = _lost(point, subject, other)
        if lost:
            yield lost
            continue
        found = _over(subject, other, region, tests=_count(relation, scene))
        yield _finding(point, found, say(subject, other, found), subject, other)


def _facing(relation: Relation, scene: Scene) -> Iterator[tuple[Point, Side, Side]]:
    for point in scene.cells:
        subject = scene.look(relation.subjects[0], point.workload, relation.metric)
        for name in relation.others:
            yield point, subject, scene.look(name, point.workload, relation.metric)


def _count(relation: Relation, scene: Scene) -> int:
    return len(scene.cells) * max(len(relation.others), len(relation.subjects))


def _paired(first: Side, second: Side, spread: PairSpread | None) -> bool:
    least = 1 if spread else 2
    return len(first.runs) == len(second.runs) >= least


def _over(first: Side, second: Side, region: Region, *, tests: int) -> Outcome:
    """The ratio of two sides: pair by pair where both were run together, else a point."""
    spread = pair_spread(first.nights, second.nights)
    if _paired(first, second, spread):
        pairs = list(zip(first.runs, second.runs, strict=True))
        return judge_ratios(pairs, region, spread=spread, tests=tests)
    above, below = first.value or math.nan, second.value or math.nan
    least = below - second.uncertainty
    return judge_point(
        above / below,
        region,
        low=(above - first.uncertainty) / (below + second.uncertainty),
        high=(above + first.uncertainty) / least if least > 0 else math.inf,
    )


def _minus(first: Side, second: Side, region: Region, *, tests: int) -> Outcome:
    if _paired(first, second, None):
        values = [a - b for a, b in zip(first.runs, second.runs, strict=True)]
        least = LEAST_SD * fmean((*first.runs, *second.runs))
        return judge_sample(values, region, least_sd=least, tests=tests)
    value = (first.value or math.nan) - (second.value or math.nan)
    off = first.uncertainty + second.uncertainty
    return judge_point(value, region, low=value - off, high=value + off)


def _alone(side: Side, region: Region, *, tests: int) -> Outcome:
    runs, nights = (1.0,) * len(side.runs), (1.0,) * len(side.nights)
    one = replace(side, value=1.0, runs=runs, nights=nights, uncertainty=0.0)
    return _over(side, one, region, tests=tests)


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
    return Finding(
        cell=point.name,
        workload=point.id,
        status=Status.FAIL,
        text=text,
        missing=True,
    )


def _finding(point: Point, found: Outcome, text: str, *sides: Side) -> Finding:
    return Finding(
        cell=point.name,
        workload=point.id,
        status=found.status,
        text=text,
        pairs=found.pairs,
        several=any(len(side.runs) > 1 for side in sides),
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
    return f"{found.value:.4g} times{_interval(found)}"


def _interval(found: Outcome, digits: int = 4) -> str:
    ends = f" [{found.low:.{digits}g}, {found.high:.{digits}g}]"
    return ends if found.low < found.high else ""


def _bounds(relation: Relation) -> str:
    low, high = relation.bounds
    if math.isinf(high):
        return f"at least {low:g}"
    if math.isinf(low):
        return f"at most {high:g}"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
