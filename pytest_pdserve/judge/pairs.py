"""Judge a claim by tonight's pairs of runs: does it hold, and if not, does noise explain it? Pure.

The distance of a pair from the claim's boundary is judged like any other value (docs/judging.md):
one pair a night, repeated on fresh starts if it violates the claim.
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
    """The range of values that a claim admits."""

    low: float = -math.inf
    high: float = math.inf
    strict: bool = False
    """True if the bounds themselves are excluded."""

    @classmethod
    def of(cls, bounds: tuple[float, float]) -> Region:
        """Return the region between *bounds*, both included."""
        return cls(low=bounds[0], high=bounds[1])

    def holds(self, low: float, high: float) -> bool:
        """Return whether every value from *low* to *high* is admitted."""
        if self.strict:
            return self.low < low and high < self.high
        return self.low <= low and high <= self.high

    def excludes(self, low: float, high: float) -> bool:
        """Return whether no value from *low* to *high* is admitted."""
        if self.strict:
            return high <= self.low or low >= self.high
        return high < self.low or low > self.high

    def log(self) -> Region:
        """Return the region on the log scale; a bound at or below 0 becomes minus infinity."""
        return Region(
            low=math.log(self.low) if self.low > 0 else -math.inf,
            high=math.log(self.high) if self.high > 0 else -math.inf,
            strict=self.strict,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result for tonight's pairs, or for a number that was read off a plot."""

    status: Status
    """PASS, FAIL or INCONCLUSIVE."""
    value: float
    """Median of tonight's pairs; or the number."""
    low: float
    """Lowest pair; or lower end of the number's uncertainty."""
    high: float
    """Highest pair; or upper end of the number's uncertainty."""
    pairs: int = 0
    """Number of pairs of runs; 0 for a number that was read off."""
    violated: int = 0
    """Number of pairs that violate the claim."""
    noise: float = 0.0
    """Distance from the boundary that noise explains, in the scale of the pairs."""
    wants_pair: bool = False
    """True if the claim is violated by more than noise explains, in too few pairs for a FAIL."""

    @property
    def is_violated(self) -> bool:
        """True if the claim is violated by more than noise explains, confirmed or not."""
        return self.status is Status.FAIL or self.wants_pair


def judge_point(value: float, region: Region, *, low: float, high: float) -> Outcome:
    """Judge one number whose true value is between *low* and *high*."""
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

    Many comparisons need no correction: a pair whose true value is on the boundary FAILs only if it
    deviates by :attr:`Rule.spreads` spreads in the same direction several times.

    :param tonight: value of each pair, e.g. the log of a ratio; at least one.
    :param noise: distance that noise explains, in the same scale.
    :param last_night: the pair of the last night; None if there is none.
    """
    value = statistics.median(tonight)
    violated = sum(not region.holds(pair, pair) for pair in tonight)
    outcome = Outcome(
        status=Status.PASS if not violated else Status.INCONCLUSIVE,
        value=value,
        low=min(tonight),
        high=max(tonight),
        pairs=len(tonight),
        violated=violated,
        noise=noise,
    )
    if violated < len(tonight) or not _beyond(value, region, noise):
        return outcome
    again = last_night is not None and _beyond(last_night, region, noise)
    if len(tonight) >= RULE.max_runs or again:
        return replace(outcome, status=Status.FAIL)
    return replace(outcome, wants_pair=True)


def _beyond(value: float, region: Region, noise: float) -> bool:
    return region.excludes(value - noise, value + noise)


def pair_noise(nights: Sequence[float], floor: float) -> float:
    """Return the distance from its true value that noise explains for a pair, in logarithms.

    It is computed like the limit of a metric, but only from the spread: a claim's boundary is
    given, not estimated from nights.

    :param nights: log ratio of the pair in each night of the baseline; may be empty.
    :param floor: smallest limit of the metric, as a fraction.
    """
    if not nights:
        return math.log1p(RULE.single_start_floors * floor)
    return reference_of(nights, floor, starts=RULE.first_starts).limit
