"""Comparisons of two sides: pair by pair if both were run tonight, else as they were read off."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace

from pytest_pdserve.judge.pairs import Outcome
from pytest_pdserve.judge.pairs import Region
from pytest_pdserve.judge.pairs import judge_pairs
from pytest_pdserve.judge.pairs import judge_point
from pytest_pdserve.judge.pairs import pair_noise
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.rules import RULE

Pair = tuple[float, float]


def ratio_of(first: Side, second: Side, region: Region) -> Outcome:
    """Judge *first* divided by *second*; the noise of the outcome is a fraction."""
    if not (first.runs and second.runs):
        return _ratio_read_off(first, second, region)
    found = judge_pairs(
        _logs(_tonight(first, second)),
        region.log(),
        noise=_noise(first, second),
        last_night=next(iter(_logs(_both(first.last_night, second.last_night))), None),
    )
    value, low, high = (math.exp(log) for log in (found.value, found.low, found.high))
    return replace(found, value=value, low=low, high=high, noise=_fraction(found.noise))


def difference_of(first: Side, second: Side, region: Region) -> Outcome:
    """Judge *first* minus *second*; chance explains the same share of the larger one."""
    if not (first.runs and second.runs):
        value = (first.value or math.nan) - (second.value or math.nan)
        off = first.uncertainty + second.uncertainty
        return judge_point(value, region, low=value - off, high=value + off)
    last = [a - b for a, b in _both(first.last_night, second.last_night)]
    return judge_pairs(
        [a - b for a, b in _tonight(first, second)],
        region,
        noise=_fraction(_noise(first, second)) * max(*first.runs, *second.runs),
        last_night=next(iter(last), None),
    )


def value_of(side: Side, region: Region) -> Outcome:
    """Judge the value of one side, whose runs are pairs with nothing beside them."""
    one = replace(
        side,
        value=1.0,
        runs=(1.0,) * len(side.runs),
        nights=(1.0,) * len(side.nights),
        last_night=(1.0,) * len(side.last_night),
        uncertainty=0.0,
    )
    return ratio_of(side, one, region)


def describe(found: Outcome, *, digits: int = 4, unit: str = "") -> str:
    """Return how sure a number is: the range of pairs, or of a reading, and what noise explains.

    :param unit: of the noise; empty if it is a fraction.
    """
    ends = f"{found.low:.{digits}g}", f"{found.high:.{digits}g}"
    if not found.pairs:
        return f" [{', '.join(ends)}]" if found.low < found.high else ""
    said = f" in {found.pairs} pairs, {' to '.join(ends)}" if found.pairs > 1 else ""
    if found.status is Status.PASS:
        return said
    if found.violated < found.pairs:
        return f"{said}, violated in {found.violated} of them"
    noise = f"{found.noise:.{digits}g} {unit}" if unit else f"{100 * found.noise:.3g} %"
    if found.wants_pair:
        enough = f" in {found.pairs} of {RULE.max_runs} pairs"
        return f"{said}, violated by more than its noise of {noise}{enough}"
    if found.status is Status.INCONCLUSIVE:
        return f"{said}, violated by no more than its noise of {noise}"
    again = ", as last night" if found.pairs < RULE.max_runs else ""
    return f"{said}, violated by more than its noise of {noise}{again}"


def _tonight(first: Side, second: Side) -> Sequence[Pair]:
    """Tonight's runs of two sides, pair by pair; their medians if one side ran more often."""
    if len(first.runs) != len(second.runs):
        return [(statistics.median(first.runs), statistics.median(second.runs))]
    return list(zip(first.runs, second.runs, strict=True))


def _both(first: Sequence[float | None], second: Sequence[float | None]) -> Sequence[Pair]:
    """Every place of which both have a value that is above 0."""
    return [(a, b) for a, b in zip(first, second, strict=False) if a and b and min(a, b) > 0]


def _logs(pairs: Iterable[Pair]) -> list[float]:
    return [math.log(a / b) for a, b in pairs]


def _noise(first: Side, second: Side) -> float:
    """How far a pair may be off by chance, in logarithms."""
    return pair_noise(_logs(_both(first.nights, second.nights)), max(first.floor, second.floor))


def _ratio_read_off(first: Side, second: Side, region: Region) -> Outcome:
    above, below = first.value or math.nan, second.value or math.nan
    least = below - second.uncertainty
    return judge_point(
        above / below,
        region,
        low=(above - first.uncertainty) / (below + second.uncertainty),
        high=(above + first.uncertainty) / least if least > 0 else math.inf,
    )


def _fraction(log: float) -> float:
    """The change that a distance in logarithms stands for; endless if no number holds it."""
    try:
        return math.expm1(log)
    except OverflowError:
        return math.inf
