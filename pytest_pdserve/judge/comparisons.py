"""Comparisons of two sides: pair by pair if both ran tonight, else by the values read off plots."""

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
    outcome = judge_pairs(
        _logs(_tonight(first, second)),
        region.log(),
        noise=_noise(first, second),
        last_night=next(iter(_logs(_paired(first.last_night, second.last_night))), None),
    )
    value, low, high = (math.exp(log) for log in (outcome.value, outcome.low, outcome.high))
    return replace(outcome, value=value, low=low, high=high, noise=_fraction(outcome.noise))


def difference_of(first: Side, second: Side, region: Region) -> Outcome:
    """Judge *first* minus *second*; noise is that of the ratio, as a share of the larger value."""
    if not (first.runs and second.runs):
        value = (first.value or math.nan) - (second.value or math.nan)
        uncertainty = first.uncertainty + second.uncertainty
        return judge_point(value, region, low=value - uncertainty, high=value + uncertainty)
    last = [a - b for a, b in _paired(first.last_night, second.last_night)]
    return judge_pairs(
        [a - b for a, b in _tonight(first, second)],
        region,
        noise=_fraction(_noise(first, second)) * max(*first.runs, *second.runs),
        last_night=next(iter(last), None),
    )


def value_of(side: Side, region: Region) -> Outcome:
    """Judge the value of one side: each run is a pair with the constant 1."""
    one = replace(
        side,
        value=1.0,
        runs=(1.0,) * len(side.runs),
        nights=(1.0,) * len(side.nights),
        last_night=(1.0,) * len(side.last_night),
        uncertainty=0.0,
    )
    return ratio_of(side, one, region)


def describe(outcome: Outcome, *, digits: int = 4, unit: str = "") -> str:
    """Return the range of the pairs or of the reading, and how it compares with noise.

    :param unit: of the noise; empty if it is a fraction.
    """
    ends = f"{outcome.low:.{digits}g}", f"{outcome.high:.{digits}g}"
    if not outcome.pairs:
        return f" [{', '.join(ends)}]" if outcome.low < outcome.high else ""
    pairs = f" in {outcome.pairs} pairs, {' to '.join(ends)}" if outcome.pairs > 1 else ""
    if outcome.status is Status.PASS:
        return pairs
    if outcome.violated < outcome.pairs:
        return f"{pairs}, violated in {outcome.violated} of them"
    noise = f"{outcome.noise:.{digits}g} {unit}" if unit else f"{100 * outcome.noise:.3g} %"
    if outcome.wants_pair:
        enough = f" in {outcome.pairs} of {RULE.max_runs} pairs"
        return f"{pairs}, violated by more than its noise of {noise}{enough}"
    if outcome.status is Status.INCONCLUSIVE:
        return f"{pairs}, violated by no more than its noise of {noise}"
    again = ", as last night" if outcome.pairs < RULE.max_runs else ""
    return f"{pairs}, violated by more than its noise of {noise}{again}"


def _tonight(first: Side, second: Side) -> Sequence[Pair]:
    """Return tonight's runs of two sides in pairs; their medians if one side ran more often."""
    if len(first.runs) != len(second.runs):
        return [(statistics.median(first.runs), statistics.median(second.runs))]
    return list(zip(first.runs, second.runs, strict=True))


def _paired(first: Sequence[float | None], second: Sequence[float | None]) -> Sequence[Pair]:
    """Return pairs of the nights on which both have a value above 0."""
    return [(a, b) for a, b in zip(first, second, strict=False) if a and b and min(a, b) > 0]


def _logs(pairs: Iterable[Pair]) -> list[float]:
    return [math.log(a / b) for a, b in pairs]


def _noise(first: Side, second: Side) -> float:
    """Return the noise of a pair, in logarithms."""
    return pair_noise(_logs(_paired(first.nights, second.nights)), max(first.floor, second.floor))


def _ratio_read_off(first: Side, second: Side, region: Region) -> Outcome:
    numerator, denominator = first.value or math.nan, second.value or math.nan
    smallest = denominator - second.uncertainty
    return judge_point(
        numerator / denominator,
        region,
        low=(numerator - first.uncertainty) / (denominator + second.uncertainty),
        high=(numerator + first.uncertainty) / smallest if smallest > 0 else math.inf,
    )


def _fraction(log: float) -> float:
    """Return the change, as a fraction, of a distance in logarithms; infinity on overflow."""
    try:
        return math.expm1(log)
    except OverflowError:
        return math.inf
