"""Whether a claim holds in tonight's pairs of runs, and whether noise explains it if not. Pure.

The distance of a pair from the claim's boundary is a value like any other (docs/judging.md): one
pair a night, repeated on fresh starts where it violates the claim.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.judge.limits import reference_of
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.rules import RULE


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The values that a claim admits."""

    low: float = -math.inf
    """Least."""
    high: float = math.inf
    """Largest."""
    strict: bool = False
    """Whether the ends themselves are outside."""

    @classmethod
    def of(cls, bounds: tuple[float, float]) -> Region:
        """Return the region of both *bounds*, ends included."""
        return cls(low=bounds[0], high=bounds[1])

    def holds(self, low: float, high: float) -> bool:
        """Tell whether all from *low* to *high* is admitted."""
        if self.strict:
            return self.low < low and high < self.high
        return self.low <= low and high <= self.high

    def excludes(self, low: float, high: float) -> bool:
        """Tell whether nothing from *low* to *high* is admitted."""
        if self.strict:
            return high <= self.low or low >= self.high
        return high < self.low or low > self.high

    def log(self) -> Region:
        """The same on the log scale; an end at 0 or below is no end."""
        return Region(
            low=math.log(self.low) if self.low > 0 else -math.inf,
            high=math.log(self.high) if self.high > 0 else -math.inf,
            strict=self.strict,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What follows from tonight's pairs, or from a number that was read off a plot."""

    status: Status
    """PASS, FAIL or INCONCLUSIVE."""
    value: float
    """Tonight's pair, the median of several; or the number."""
    low: float
    """Lowest pair; or the lowest that the number may be."""
    high: float
    """Highest."""
    pairs: int = 0
    """Pairs of runs that were looked at; 0 is a number that was read off."""
    violated: int = 0
    """Pairs that violate the claim."""
    noise: float = 0.0
    """How far a pair may lie beyond the boundary by chance, in the scale of the pairs."""
    wants_pair: bool = False
    """Whether the claim is violated by more than noise explains, in too few pairs for a FAIL."""

    @property
    def is_violated(self) -> bool:
        """Whether the claim is violated by more than noise explains, confirmed or not."""
        return self.status is Status.FAIL or self.wants_pair


def judge_point(value: float, region: Region, *, low: float, high: float) -> Outcome:
    """Judge one number that is known to lie between *low* and *high*."""
    status = Status.INCONCLUSIVE
    if region.holds(low, high):
        status = Status.PASS
    elif region.excludes(low, high):
        status = Status.FAIL
    return Outcome(status=status, value=value, low=low, high=high)


def judge_pairs(
    tonight: Sequence[float],
    region: Region,
    *,
    noise: float,
    last_night: float | None = None,
) -> Outcome:
    """Judge tonight's pairs.

    It is a PASS if every pair holds. It is a FAIL if every pair violates the claim, the median by
    more than *noise*, and either there are :attr:`Rule.max_runs` pairs or last night's pair
    violated it by more than *noise* too. Anything else is INCONCLUSIVE.

    Many comparisons need no correction: a pair whose true value lies on the boundary FAILs only if
    it is off by :attr:`Rule.spreads` spreads in the same direction again and again.

    :param tonight: value of each pair, e.g. the log of a ratio; at least one.
    :param noise: distance that chance explains, in the same scale.
    :param last_night: the pair of the last night; None if there is none.
    """
    value = statistics.median(tonight)
    violated = sum(not region.holds(pair, pair) for pair in tonight)
    found = Outcome(
        status=Status.PASS if not violated else Status.INCONCLUSIVE,
        value=value,
        low=min(tonight),
        high=max(tonight),
        pairs=len(tonight),
        violated=violated,
        noise=noise,
    )
    if violated < len(tonight) or not _beyond(value, region, noise):
        return found
    again = last_night is not None and _beyond(last_night, region, noise)
    if len(tonight) >= RULE.max_runs or again:
        return replace(found, status=Status.FAIL)
    return replace(found, wants_pair=True)


def _beyond(value: float, region: Region, noise: float) -> bool:
    return region.excludes(value - noise, value + noise)


def pair_noise(nights: Sequence[float], floor: float) -> float:
    """Return how far a pair may lie from where it belongs by chance, in logarithms.

    It is as wide as the limit of a metric, of which only the spread matters here: a claim's
    boundary is given, not learned from nights.

    :param nights: log ratio of the pair in each night of the baseline; may be empty.
    :param floor: least limit of the metric, as a fraction.
    """
    if not nights:
        return math.log1p(RULE.single_start_floors * floor)
    return reference_of(nights, floor, starts=RULE.first_starts).limit
