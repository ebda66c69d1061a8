"""Steps and slow drifts in one metric of one cell, night by night. Pure; needs ruptures.

The nights are modelled by levels, steps between them and drifts (level, line, level). Of all models
the best has the smallest squared distance from the nights, in variances of their
noise, plus a penalty for each step and each drift. docs/trend.md describes the method, its sources
and its error rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.trend import MIN_NIGHTS
from pytest_pdserve.values.trend import Kind

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIN_LEVEL = 3
"""Smallest number of nights of a level; fewer are single nights, not a change."""
MIN_DRIFT = 7
"""Smallest number of nights of a drift; a faster change is a step."""
PENALTY = 2.5
"""Penalty of each parameter of a model, in logarithms of the number of nights. The Bayesian
criterion has 1 (Yao 1988), for one series of known noise; here hundreds are searched."""
FEW_NIGHTS = 60
"""Number of nights below which the penalty stays constant: their noise is estimated poorly."""
STEP_PARAMETERS = 2
"""Parameters of a step: night and size."""
DRIFT_PARAMETERS = 3
"""Parameters of a drift: first night, last night and size."""
CANDIDATE_SHARE = 0.5
"""Share of the penalty used in the search for nights at which a level may begin or end."""
MIN_NOISE = 0.001
"""Smallest standard deviation of nights, as a fraction: rounded values can appear to have none."""
NEIGHBOURS = 2
"""Nights on each side that are included in a night's running median."""
CLIP_SDS = 3.0
"""Standard deviations from the running median to which a night is clipped (Hampel's filter)."""
BROKEN_SDS = 6.0
"""Standard deviations from the running median beyond which a night is reported as broken."""
MAX_CORRELATION = 0.9
"""Upper bound of the estimated correlation of a night with the next."""
TAIL = 0.1
"""Share of the differences between nights at each end that the noise estimate leaves out."""
GRID = 40
"""Candidates for the ends of a drift in a coarse search, followed by one over all nights nearby."""
_TAIL_SD = 1.2815515655446004
"""Standard deviations beyond which a normal variable has that share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A step or a drift. Levels are logarithms, nights are indices of the array."""

    kind: Kind
    first: int
    """First night of the new level; for a drift the last night of the old level."""
    last: int
    """The same night; for a drift the first night of the new level, or the newest night."""
    before: float
    """Level before it."""
    after: float
    """Level after it."""
    strength: float
    """Size in standard deviations of a night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesAnalysis:
    """The changes and the noise in the nights of one metric of one cell."""

    changes: tuple[Change, ...]
    """Oldest first."""
    noise: float
    """Standard deviation of nights around their level, as a logarithm."""
    correlation: float
    """Correlation of the noise of a night with the next night's."""
    broken: tuple[int, ...]
    """Indices of single nights far from those around them."""


def analyze_series(logs: Floats, *, correlation: float | None = None) -> SeriesAnalysis:
    """Return the changes and the noise in a series of logarithms, one per night, oldest first.

    :param correlation: of the noise of a night with the next night's; None estimates it from these
        nights alone.
    :raises ConfigError: if ruptures is not installed.
    :raises ValueError: if there are fewer than :data:`MIN_NIGHTS`.
    """
    if len(logs) < MIN_NIGHTS:
        raise ValueError(f"{len(logs)} nights, expected at least {MIN_NIGHTS}")
    used = correlation_of(logs) if correlation is None else min(correlation, MAX_CORRELATION)
    noise = _noise(logs, used)
    around = _median_around(logs)
    clipped = _clipped(logs, around, noise)
    centre = float(np.median(clipped))
    # The mean of correlated nights varies like the mean of fewer nights without correlation.
    unit = noise * math.sqrt((1 + used) / (1 - used))
    changes = tuple(_changes(_best_blocks((clipped - centre) / unit), centre, unit, noise))
    far = np.flatnonzero(abs(logs - around) > BROKEN_SDS * noise)
    # A far night next to a step, or at an end, may belong to a new level.
    ends = {0, len(logs) - 1, *(change.first for change in changes if change.kind == "step")}
    return SeriesAnalysis(
        changes=changes,
        noise=noise,
        correlation=used,
        broken=tuple(n for n in map(int, far) if min(abs(n - e) for e in ends) >= NEIGHBOURS),
    )


def correlation_of(logs: Floats) -> float:
    """Return the correlation of the noise of a night with the next night's, at least 0.

    It is estimated from distances to the levels of a first search for steps alone, which assumes no
    correlation. Subtracting a level's own mean reduces it; this bias is corrected to first order
    (Marriott and Pope 1954).

    :raises ConfigError: if ruptures is not installed.
    """
    noise = _noise(logs, 0.0)
    nights = _clipped(logs, _median_around(logs), noise) / noise
    ends = _level_ends(nights, STEP_PARAMETERS * _penalty(len(nights)))
    rests = [nights[start:stop] - nights[start:stop].mean() for start, stop in pairwise(ends)]
    total = sum(float(rest @ rest) for rest in rests)
    if total <= 0:
        return 0.0
    biased = sum(float(rest[1:] @ rest[:-1]) for rest in rests) / total
    share = len(rests) / len(nights)
    return min(max((biased + share) / max(1 - 3 * share, 0.5), 0.0), MAX_CORRELATION)


def _penalty(nights: int) -> float:
    """Return the penalty of each parameter of a model."""
    return PENALTY * math.log(max(nights, FEW_NIGHTS))


def _noise(logs: Floats, correlation: float) -> float:
    """Return the standard deviation of a night, from differences of nights; steps affect few."""
    return max(_spread(np.diff(logs)) / math.sqrt(2 * (1 - correlation)), MIN_NOISE)


def _clipped(logs: Floats, around: Floats, noise: float) -> Floats:
    """Return the nights, clipped to a range around their running median."""
    clipped: Floats = np.clip(logs, around - CLIP_SDS * noise, around + CLIP_SDS * noise)
    return clipped


def _spread(differences: Floats) -> float:
    """Return the standard deviation of *differences*, estimated without their tails."""
    low, high = np.quantile(differences, [TAIL, 1 - TAIL])
    return float(high - low) / (2 * _TAIL_SD)


def _median_around(logs: Floats) -> Floats:
    """Return the running median of each night; over fewer nights at both ends."""
    windows = np.lib.stride_tricks.sliding_window_view(logs, 2 * NEIGHBOURS + 1)
    first = [np.median(logs[: place + NEIGHBOURS + 1]) for place in range(NEIGHBOURS)]
    last = [np.median(logs[place - 2 * NEIGHBOURS :]) for place in range(NEIGHBOURS)]
    return np.concatenate([first, np.median(windows, axis=1), last])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """The nights between two steps: one level, or a level, a drift and another level."""

    start: int
    stop: int
    drift: tuple[int, int] | None
    """Last night of the old level and first night of the new one."""
    before: float
    after: float


class _Sums:
    """Cumulated sums, which give sums over any range of nights in constant time."""

    def __init__(self, nights: Floats) -> None:
        self.value = _running(nights)
        self.square = _running(nights**2)
        self.moment = _running(nights * np.arange(len(nights)))

    def misfit(self, start: int, stop: int) -> float:
        """Return the squared distance of the nights from their mean."""
        total = self.value[stop] - self.value[start]
        return float(self.square[stop] - self.square[start] - total**2 / (stop - start))

    def block(self, start: int, stop: int, drift: tuple[int, int] | None) -> _Block:
        """Return the block with its levels, by least squares."""
        mean = float(self.value[stop] - self.value[start]) / (stop - start)
        if drift is None:
            return _Block(start=start, stop=stop, drift=None, before=mean, after=mean)
        first, last = (np.array([night]) for night in drift)
        weight, variance, common = (float(v[0]) for v in self._line(start, stop, first, last))
        size = common / variance
        before = mean - size * weight
        return _Block(start=start, stop=stop, drift=drift, before=before, after=before + size)

    def drift(self, start: int, stop: int) -> tuple[float, tuple[int, int]] | None:
        """Return the reduction of a block's misfit by the best drift, and the drift's two ends."""
        if stop - start <= MIN_DRIFT:
            return None
        stride = math.ceil((stop - start) / GRID)
        candidates = np.unique(np.append(np.arange(start, stop, stride), stop - 1))
        gain, first, last = self._best(start, stop, candidates, candidates)
        if stride > 1:
            near = np.arange(-stride, stride + 1)
            inside = [np.clip(place + near, start, stop - 1) for place in (first, last)]
            gain, first, last = self._best(start, stop, *map(np.unique, inside))
        return gain, (first, last)

    def _best(self, start: int, stop: int, firsts: Ints, lasts: Ints) -> tuple[float, int, int]:
        first, last = (grid.ravel() for grid in np.meshgrid(firsts, lasts, indexing="ij"))
        long = last - first >= MIN_DRIFT
        first, last = first[long], last[long]
        _, variance, common = self._line(start, stop, first, last)
        gains = common**2 / variance
        best = int(gains.argmax())
        return float(gains[best]), int(first[best]), int(last[best])

    def _line(
        self, start: int, stop: int, first: Ints, last: Ints
    ) -> tuple[Floats, Floats, Floats]:
        """Return mean and sum of squares of a line, and its sum of products with the nights.

        The line is 0 up to *first* and 1 from *last* on; both sums are of distances from means.
        """
        nights, length = stop - start, (last - first).astype(float)
        ones = stop - last
        total = (length - 1) / 2 + ones
        squares = (length - 1) * (2 * length - 1) / (6 * length) + ones
        rising = self.moment[last] - self.moment[first]
        rising = (rising - first * (self.value[last] - self.value[first])) / length
        products = rising + self.value[stop] - self.value[last]
        mean = (self.value[stop] - self.value[start]) / nights
        return total / nights, squares - total**2 / nights, products - total * mean


def _running(values: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _best_blocks(nights: Floats) -> list[_Block]:
    """Return the blocks with the smallest sum of misfit and penalty.

    The optimum over all blocks that begin and end at a candidate is exact (Jackson et al. 2005).

    :param nights: logarithms in units of their noise.
    """
    sums, penalty = _Sums(nights), _penalty(len(nights))
    ends = _level_ends(nights, CANDIDATE_SHARE * STEP_PARAMETERS * penalty)
    costs, ways = [-STEP_PARAMETERS * penalty], [(0, sums.block(0, len(nights), None))]
    for number, stop in enumerate(ends[1:], 1):
        costs.append(math.inf)
        ways.append(ways[0])
        for before, start in enumerate(ends[:number]):
            cost = costs[before] + STEP_PARAMETERS * penalty + sums.misfit(start, stop)
            if cost < costs[number]:
                costs[number], ways[number] = cost, (before, sums.block(start, stop, None))
            drift = sums.drift(start, stop)
            if drift and cost - drift[0] + DRIFT_PARAMETERS * penalty < costs[number]:
                costs[number] = cost - drift[0] + DRIFT_PARAMETERS * penalty
                ways[number] = before, sums.block(start, stop, drift[1])
    blocks, number = [], len(ends) - 1
    while number:
        number, block = ways[number]
        blocks.append(block)
    return blocks[::-1]


def _level_ends(nights: Floats, penalty: float) -> list[int]:
    """Return the nights at which a level begins, with 0 and the number of nights.

    They are those of the best model with steps alone (PELT: Killick et al. 2012).

    :raises ConfigError: if ruptures is not installed.
    """
    try:
        from ruptures import KernelCPD
    except ImportError as error:
        raise ConfigError(f"a trend needs {error.name}; install pytest-pdserve[history]") from error
    search = KernelCPD(kernel="linear", min_size=MIN_LEVEL).fit(nights)
    return [0, *(int(end) for end in search.predict(pen=penalty))]


def _changes(blocks: list[_Block], centre: float, unit: float, noise: float) -> Iterator[Change]:
    """Return the drifts of all blocks and the steps between them, oldest first."""

    def change(kind: Kind, nights: tuple[int, int], old: float, new: float) -> Change:
        before, after = centre + unit * old, centre + unit * new
        strength = abs(after - before) / noise
        return Change(
            kind=kind,
            first=nights[0],
            last=nights[1],
            before=before,
            after=after,
            strength=strength,
        )

    for earlier, block in pairwise([None, *blocks]):
        assert block is not None
        if earlier is not None:
            yield change("step", (block.start, block.start), earlier.after, block.before)
        if block.drift is not None:
            yield change("drift", block.drift, block.before, block.after)
