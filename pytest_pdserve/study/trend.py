"""Steps and slow drifts in one metric of one cell, night by night. Pure; needs ruptures.

The nights are explained by levels, by steps between them and by drifts: level, straight line, level
(a broken line). Of all explanations the one is taken whose squared distance from the nights, in
variances of their noise, plus a penalty for each step and each drift is least. docs/trend.md has
the method, its sources, and how often it is right.
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
"""Nights that a level must last; fewer are single nights, not a change."""
MIN_DRIFT = 7
"""Nights that a drift must take; a faster change is a step."""
PENALTY = 2.5
"""Penalty of each number that an explanation needs, in logarithms of the nights. The Bayesian
criterion has 1 (Yao 1988), for one series whose noise is known; here hundreds are searched."""
FEW_NIGHTS = 60
"""Nights below which the penalty does not fall: the noise of fewer nights is badly known."""
STEP_NUMBERS = 2
"""What a step needs: when, and how much."""
DRIFT_NUMBERS = 3
"""What a drift needs: from when, until when, and how much."""
CANDIDATES = 0.5
"""Share of the penalty with which nights are searched for at which a level may begin or end."""
MIN_NOISE = 0.001
"""Least standard deviation of nights, as a fraction: rounded values can seem to have none."""
NEIGHBOURS = 2
"""Nights to each side of which a median says where a night should be."""
FAR = 3.0
"""Standard deviations beyond which a night is drawn in towards that median (Hampel's filter)."""
BROKEN = 6.0
"""Standard deviations from that median beyond which a night is named as broken."""
MAX_CORRELATION = 0.9
"""Correlation of a night with the next that is never exceeded."""
TAIL = 0.1
"""Share of differences between nights, to each side, that the estimate of the noise leaves out."""
GRID = 40
"""Nights at which a drift may begin or end in a first search; the second has all nights nearby."""
_TAIL_SD = 1.2815515655446004
"""Standard deviations beyond which a normal variable has that share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A step or a drift. Levels are logarithms, nights are places in the array."""

    kind: Kind
    """Which of the two."""
    first: int
    """First night of the new level; of a drift the last night of the old one."""
    last: int
    """The same night; of a drift the first night of the new level, or the newest."""
    before: float
    """Level before it."""
    after: float
    """Level after it."""
    strength: float
    """How large it is, in standard deviations of a night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is found in the nights of one metric of one cell."""

    changes: tuple[Change, ...]
    """Oldest first."""
    noise: float
    """Standard deviation of nights around their level, as a logarithm."""
    correlation: float
    """Correlation of the noise of a night with the next night's."""
    broken: tuple[int, ...]
    """Single nights far from those around them."""


def course_of(logs: Floats, *, correlation: float | None = None) -> Course:
    """Return what is found in the logarithms of a value, a night each, oldest first.

    :param correlation: of the noise of a night with the next night's; None estimates it from these
        nights alone.
    :raises ConfigError: if ruptures is not installed.
    :raises ValueError: if there are fewer than :data:`MIN_NIGHTS`.
    """
    if len(logs) < MIN_NIGHTS:
        raise ValueError(f"{len(logs)} nights, expected at least {MIN_NIGHTS}")
    known = correlation_of(logs) if correlation is None else min(correlation, MAX_CORRELATION)
    noise = _noise(logs, known)
    around = _median_around(logs)
    kept = _drawn_in(logs, around, noise)
    centre = float(np.median(kept))
    # The mean of correlated nights varies as that of fewer nights without correlation.
    unit = noise * math.sqrt((1 + known) / (1 - known))
    changes = tuple(_changes(_best_blocks((kept - centre) / unit), centre, unit, noise))
    far = np.flatnonzero(abs(logs - around) > BROKEN * noise)
    # A far night beside a step, or at an end, may be one of a new level.
    ends = {0, len(logs) - 1, *(change.first for change in changes if change.kind == "step")}
    return Course(
        changes=changes,
        noise=noise,
        correlation=known,
        broken=tuple(n for n in map(int, far) if min(abs(n - e) for e in ends) >= NEIGHBOURS),
    )


def correlation_of(logs: Floats) -> float:
    """Return the correlation of the noise of a night with the next night's, at least 0.

    It is that of the distances from the levels that a first search for steps alone finds, as if
    there were none. A level's own mean takes some of it away: that is given back to first order
    (Marriott and Pope 1954).

    :raises ConfigError: if ruptures is not installed.
    """
    noise = _noise(logs, 0.0)
    nights = _drawn_in(logs, _median_around(logs), noise) / noise
    ends = _level_ends(nights, STEP_NUMBERS * _penalty(len(nights)))
    rests = [nights[start:stop] - nights[start:stop].mean() for start, stop in pairwise(ends)]
    whole = sum(float(rest @ rest) for rest in rests)
    if whole <= 0:
        return 0.0
    found = sum(float(rest[1:] @ rest[:-1]) for rest in rests) / whole
    share = len(rests) / len(nights)
    return min(max((found + share) / max(1 - 3 * share, 0.5), 0.0), MAX_CORRELATION)


def _penalty(nights: int) -> float:
    """Return the penalty of each number that an explanation needs."""
    return PENALTY * math.log(max(nights, FEW_NIGHTS))


def _noise(logs: Floats, correlation: float) -> float:
    """Return the standard deviation of a night, from differences of nights: steps change few."""
    return max(_spread(np.diff(logs)) / math.sqrt(2 * (1 - correlation)), MIN_NOISE)


def _drawn_in(logs: Floats, around: Floats, noise: float) -> Floats:
    """Return the nights, and those far from the median around them nearer to it."""
    kept: Floats = np.clip(logs, around - FAR * noise, around + FAR * noise)
    return kept


def _spread(differences: Floats) -> float:
    """Return the standard deviation that the middle of *differences* has, without its tails."""
    low, high = np.quantile(differences, [TAIL, 1 - TAIL])
    return float(high - low) / (2 * _TAIL_SD)


def _median_around(logs: Floats) -> Floats:
    """Return the median of each night and its neighbours; of fewer at both ends."""
    windows = np.lib.stride_tricks.sliding_window_view(logs, 2 * NEIGHBOURS + 1)
    first = [np.median(logs[: place + NEIGHBOURS + 1]) for place in range(NEIGHBOURS)]
    last = [np.median(logs[place - 2 * NEIGHBOURS :]) for place in range(NEIGHBOURS)]
    return np.concatenate([first, np.median(windows, axis=1), last])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Nights between two steps: a level, or a level, a drift and another level."""

    start: int
    stop: int
    drift: tuple[int, int] | None
    """Last night of the old level and first night of the new one."""
    before: float
    after: float


class _Sums:
    """Sums over any stretch of nights in one step."""

    def __init__(self, nights: Floats) -> None:
        self.value = _running(nights)
        self.square = _running(nights**2)
        self.moment = _running(nights * np.arange(len(nights)))

    def misfit(self, start: int, stop: int) -> float:
        """Squared distance of the nights from their mean."""
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
        """Return by how much the best drift makes a block's misfit less, and its two ends."""
        if stop - start <= MIN_DRIFT:
            return None
        stride = math.ceil((stop - start) / GRID)
        places = np.unique(np.append(np.arange(start, stop, stride), stop - 1))
        gain, first, last = self._best(start, stop, places, places)
        if stride > 1:
            near = np.arange(-stride, stride + 1)
            inside = [np.clip(place + near, start, stop - 1) for place in (first, last)]
            gain, first, last = self._best(start, stop, *map(np.unique, inside))
        return gain, (first, last)

    def _best(self, start: int, stop: int, firsts: Ints, lasts: Ints) -> tuple[float, int, int]:
        first, last = (each.ravel() for each in np.meshgrid(firsts, lasts, indexing="ij"))
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

        It is 0 up to *first* and 1 from *last* on; both sums are of distances from the means.
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
    """Return the blocks of least misfit and penalty, of nights in units of their noise.

    Exact over all blocks that begin and end at a candidate (Jackson et al. 2005).
    """
    sums, each = _Sums(nights), _penalty(len(nights))
    ends = _level_ends(nights, CANDIDATES * STEP_NUMBERS * each)
    costs, ways = [-STEP_NUMBERS * each], [(0, sums.block(0, len(nights), None))]
    for number, stop in enumerate(ends[1:], 1):
        costs.append(math.inf)
        ways.append(ways[0])
        for before, start in enumerate(ends[:number]):
            cost = costs[before] + STEP_NUMBERS * each + sums.misfit(start, stop)
            if cost < costs[number]:
                costs[number], ways[number] = cost, (before, sums.block(start, stop, None))
            found = sums.drift(start, stop)
            if found and cost - found[0] + DRIFT_NUMBERS * each < costs[number]:
                costs[number] = cost - found[0] + DRIFT_NUMBERS * each
                ways[number] = before, sums.block(start, stop, found[1])
    blocks, number = [], len(ends) - 1
    while number:
        number, block = ways[number]
        blocks.append(block)
    return blocks[::-1]


def _level_ends(nights: Floats, penalty: float) -> list[int]:
    """Return the nights at which a level begins, with 0 and the number of nights.

    They are those of the best explanation by steps alone (PELT: Killick et al. 2012).

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
