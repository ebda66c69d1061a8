"""Whether a number lies where it is claimed to lie: from one pair of runs, or pair by pair."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.verdict import Status

ERROR = 0.005
"""Chance of a false PASS, and of a false FAIL."""
MAX_PAIRS = 6
"""Pairs that are looked at, at most."""
LEAST_SD = 0.001 * math.sqrt(2)
"""Log ratios of two runs spread by this at least: a run never repeats itself within 0.1 %."""
_BLIND = 3
"""Pairs from which their own spread is taken, where no other is known."""


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
    """An estimate, how far it may be off, and what follows from it."""

    status: Status
    """PASS, FAIL or INCONCLUSIVE."""
    value: float
    """Estimate."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    pairs: int = 0
    """Pairs that were looked at; 0 is a point, whose interval holds no run-to-run noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSpread:
    """What is known beforehand of how far pairs of runs spread."""

    sd: float
    """Standard deviation of a pair's log ratio."""
    freedom: float = math.inf
    """Degrees of freedom that it rests on."""


def judge_point(value: float, region: Region, *, low: float, high: float) -> Outcome:
    """Judge one number that is known to lie between *low* and *high*, run-to-run noise aside."""
    status = Status.INCONCLUSIVE
    if region.holds(low, high):
        status = Status.PASS
    elif region.excludes(low, high):
        status = Status.FAIL
    return Outcome(status=status, value=value, low=low, high=high)


def judge_ratios(
    pairs: Sequence[tuple[float, float]],
    region: Region,
    *,
    spread: PairSpread | None = None,
    tests: int = 1,
) -> Outcome:
    """Judge the ratio first/second of paired runs, one pair after the other.

    :param pairs: values of two runs that share night and nodes, in the order they were run.
    :param region: ratios that are admitted.
    :param spread: of such a pair, where history knows it; None takes that of the pairs.
    :param tests: comparisons of the claim; a FAIL is claimed at the error divided by them, which is
        the first step of Holm's procedure, a PASS needs all of them and no correction.
    :raises ValueError: if there is no pair, or a value is not positive.
    """
    logs = [math.log(first) - math.log(second) for first, second in pairs]
    known = spread and PairSpread(sd=max(spread.sd, LEAST_SD), freedom=spread.freedom)
    found = judge_sample(logs, region.log(), least_sd=LEAST_SD, spread=known, tests=tests)
    return Outcome(
        status=found.status,
        value=_exp(found.value),
        low=_exp(found.low),
        high=_exp(found.high),
        pairs=found.pairs,
    )


def judge_sample(
    values: Sequence[float],
    region: Region,
    *,
    least_sd: float,
    spread: PairSpread | None = None,
    tests: int = 1,
) -> Outcome:
    """Judge the mean of *values* by t intervals, after each of them until it is decided.

    The error is shared evenly by the looks there can be: six with a known spread, four without, as
    the spread of two values says next to nothing. Values after the sixth are not looked at. With a
    known spread what is said must hold whichever value is left out; an only value may PASS, but
    never FAIL.

    :raises ValueError: if there is no value.
    """
    if not values:
        raise ValueError("no pairs")
    first = 1 if spread else _BLIND
    error = ERROR / (MAX_PAIRS - first + 1)
    found = None
    alone = 1 if spread and len(values) > 1 else 0
    for pairs in range(first + alone, min(len(values), MAX_PAIRS) + 1):
        found = _look(values[:pairs], region, (error, error / tests), (least_sd, spread))
        if found.status is not Status.INCONCLUSIVE:
            break
    return found or Outcome(
        status=Status.INCONCLUSIVE,
        value=statistics.fmean(values),
        low=-math.inf,
        high=math.inf,
        pairs=len(values),
    )


def _look(
    values: Sequence[float],
    region: Region,
    errors: tuple[float, float],
    known: tuple[float, PairSpread | None],
) -> Outcome:
    least, spread = known
    mean, count = statistics.fmean(values), len(values)
    sd = spread.sd if spread else max(statistics.stdev(values), least)
    freedom = spread.freedom if spread else count - 1
    reach = [_quantile(error, freedom) * sd / math.sqrt(count) for error in errors]
    status = Status.INCONCLUSIVE
    if region.holds(mean - reach[0], mean + reach[0]):
        sure = spread is None or count == 1 or _without_any(values, region.holds, reach[0])
        status = Status.PASS if sure else status
    elif region.excludes(mean - reach[1], mean + reach[1]):
        sure = spread is None or (count > 1 and _without_any(values, region.excludes, reach[1]))
        status = Status.FAIL if sure else status
    return Outcome(
        status=status, value=mean, low=mean - reach[0], high=mean + reach[0], pairs=count
    )


def _without_any(
    values: Sequence[float], says: Callable[[float, float], bool], reach: float
) -> bool:
    """Whether *says* holds whichever of *values* is left out.

    One run in a hundred is slowed by 5 to 50 % without a cause. A known spread does not show it,
    and no such run is to decide; where the pairs' own spread is used, it shows there.
    """
    rest = len(values) - 1
    reach *= math.sqrt(len(values) / rest)
    means = [(math.fsum(values) - value) / rest for value in (min(values), max(values))]
    return all(says(mean - reach, mean + reach) for mean in means)


def _quantile(error: float, freedom: float) -> float:
    """Student's t that is exceeded with probability *error*."""
    if math.isinf(freedom):
        return statistics.NormalDist().inv_cdf(1 - error)
    from scipy.special import stdtrit

    quantile: Callable[[float, float], float] = stdtrit
    return float(quantile(freedom, 1 - error))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
