"""The noise of an unchanged system, and the floors and loads that it suggests. Pure.

All arithmetic is on logarithms. docs/calibration.md explains the model and its limits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import combinations
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri

from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.values.calibration import MEASURED
from pytest_pdserve.values.calibration import MIN_NIGHTS
from pytest_pdserve.values.calibration import MIN_STARTS
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.calibration import CalibrationRun
from pytest_pdserve.values.calibration import CellLoad
from pytest_pdserve.values.calibration import CellNoise
from pytest_pdserve.values.calibration import FirstRun
from pytest_pdserve.values.calibration import Forecast
from pytest_pdserve.values.calibration import InsensitiveMetric
from pytest_pdserve.values.calibration import LoadRatio
from pytest_pdserve.values.calibration import MetricNoise
from pytest_pdserve.values.calibration import Series
from pytest_pdserve.values.calibration import Spread
from pytest_pdserve.values.calibration import limit_of
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.system import Judgement

Floats = npt.NDArray[np.float64]
Runs = Sequence[CalibrationRun]

MAX_FACTOR = 64
"""Largest factor by which a longer load is proposed."""
MAX_FLOOR = 10.0
"""Largest floor that a system file accepts."""
LONGER = (1, 2, 4, 8, 16)
"""Factors of the number of prompts for which forecasts are made."""
SAME_DIRECTION = 0.9
"""Least share of first runs that differ in one direction, for a metric to count as different."""
ENOUGH = 0.75
"""Share of the longest load's gain from which a load is long enough."""
PAIRS_SD = 1 / (math.sqrt(2) * statistics.NormalDist().inv_cdf(0.75))
"""Standard deviation of normal values, in medians of the distance of two of them (Shamos 1976;
Rousseeuw and Croux 1993, "Alternatives to the median absolute deviation", section 2)."""
PAIRS_EFFICIENCY = 0.4
"""Efficiency of this estimate, as a share of the degrees of freedom, if starts have few runs; 0.86
with many. From simulation, so that 90 % of intervals contain the true value
(docs/calibration.md)."""
MEDIAN_VARIANCE = {3: 0.4487, 5: 0.2868, 7: 0.2104, 9: 0.1661}
"""Variance of the median of 3, 5, … normal values, in variances of one value (Hojo 1931)."""
_ROUNDED = 0.25
"""Values count as rounded if some are equal and all others differ by at least this share of their
spread."""


def calibrate(series: Series, judgement: Judgement) -> Calibration:
    """Return the noise of a system, with proposed floors and loads.

    :param series: runs of an unchanged system.
    :param judgement: limits of the system, with the changes that it promises to detect.
    """
    measured = [run for run in series.runs if run.role == MEASURED]
    first_runs = tuple(_first_runs(series.runs))
    without_first = {(first.cell, first.prompts) for first in first_runs if first.is_left_out}
    noise: list[CellNoise] = []
    few_starts: list[CellLoad] = []
    cell_starts: dict[CellLoad, int] = {}
    for load, runs in _by_load(measured).items():
        cell_starts[load] = max(len(_starts(runs, metric)) for metric in METRICS.times)
        kept = [run for run in runs if run.order > 0] if load in without_first else runs
        of_load = [n for name in METRICS.times if (n := noise_of(name, kept)) is not None]
        noise += of_load
        few_starts += [] if of_load else [load]
    longest = [each for each in noise if each.prompts == _max_prompts(noise, each)]
    forecasts = tuple(_forecasts(longest, judgement))
    nights = len({run.night for run in measured})
    return Calibration(
        source=series.source,
        cells=len({each.cell for each in noise}),
        starts=len({run.start for run in measured}),
        nights=nights,
        runs=len(measured),
        noise=tuple(noise),
        metrics=tuple(_metric_noise(longest, judgement, nights=nights)),
        forecasts=forecasts,
        insensitive=tuple(_insensitive_metrics(longest, judgement)),
        prompts=_proposed_prompts(forecasts),
        first_runs=first_runs,
        ratios=tuple(_ratios(noise)),
        cell_starts=cell_starts,
        few_starts=tuple(few_starts),
        single_runs=tuple(
            dict.fromkeys((each.cell, each.prompts) for each in noise if each.within is None)
        ),
    )


def _starts(runs: Runs, metric: str) -> set[str]:
    return {run.start for run in runs if metric in run.values}


def _by_load(runs: Runs) -> dict[CellLoad, list[CalibrationRun]]:
    loads: dict[CellLoad, list[CalibrationRun]] = {}
    for run in sorted(runs, key=lambda run: (run.topology, run.cell, run.prompts)):
        loads.setdefault((run.cell, run.prompts), []).append(run)
    return loads


def _max_prompts(noise: Sequence[CellNoise], of: CellNoise) -> int:
    return max(each.prompts for each in noise if each.cell == of.cell)


def noise_of(metric: str, runs: Runs) -> CellNoise | None:
    """Return the noise of *metric* over runs of one cell; None if the runs have too few starts."""
    runs = [run for run in runs if metric in run.values]
    better = METRICS[metric].better
    logs = np.array([signed_log(run.values[metric], better) for run in runs])
    starts = [run.start for run in runs]
    if len(set(starts)) < MIN_STARTS:
        return None
    within, between, night, is_rounded = _spreads(logs, starts)
    loads = [run.load_s for run in runs if run.load_s is not None]
    return CellNoise(
        cell=runs[0].cell,
        prompts=runs[0].prompts,
        metric=metric,
        starts=len(set(starts)),
        runs=len(runs),
        load_s=statistics.median(loads) if loads else None,
        night=night,
        within=within,
        between=between,
        is_rounded=is_rounded,
    )


def _spreads(
    logs: Floats, starts: Sequence[str]
) -> tuple[Spread | None, Spread | None, Spread, bool]:
    """Return spreads within a start, between starts and of nights, and whether values are rounded.

    Each is estimated from distances of pairs of runs, of one start or of two. Distances from a
    start's median would be too small by a third to a half if a start has two or three runs.
    """
    distances = np.abs(logs[:, None] - logs[None, :])
    names, codes, sizes = np.unique(starts, return_inverse=True, return_counts=True)
    upper = np.triu(np.ones_like(distances, dtype=bool), k=1)
    same = codes[:, None] == codes[None, :]
    inside, across = distances[upper & same], distances[upper & ~same]
    is_rounded = _is_rounded(distances[upper], PAIRS_SD * float(np.median(across)))
    total = _scale(across, is_rounded=is_rounded)
    if np.count_nonzero(sizes > 1) < MIN_STARTS:
        return None, None, _interval(total, len(names) - 1), is_rounded
    own = _scale(inside, is_rounded=is_rounded)
    total = max(total, own)
    between = math.sqrt(total**2 - own**2)
    runs = len(names) / float(np.sum(1 / sizes))
    df_starts, df_runs = len(names) - 1, len(logs) - len(names)
    of_means, rest = between**2 + own**2 / runs, (1 - 1 / runs) * own**2
    parts = of_means**2 / df_starts + rest**2 / df_runs
    df_night = total**4 / parts if parts > 0 else df_starts  # Satterthwaite 1946
    means = _interval(math.sqrt(of_means), df_starts)
    return (
        _interval(own, df_runs),
        Spread(
            value=between,
            low=_minus(means.low, own / math.sqrt(runs)),
            high=_minus(means.high, own / math.sqrt(runs)),
        ),
        _interval(total, df_night),
        is_rounded,
    )


def _minus(total: float, part: float) -> float:
    return math.sqrt(max(0.0, total**2 - part**2))


def _is_rounded(distances: Floats, spread: float) -> bool:
    apart = distances[distances > 0]
    return 0 < len(apart) < len(distances) and float(np.min(apart)) > _ROUNDED * spread


def _scale(distances: Floats, *, is_rounded: bool) -> float:
    """Return the standard deviation of values from the distances of their pairs."""
    if is_rounded:  # most distances are 0 or one step, and so is their median
        return math.sqrt(float(np.mean(distances**2)) / 2)
    return PAIRS_SD * float(np.median(distances))


def _interval(value: float, df: float) -> Spread:
    df *= PAIRS_EFFICIENCY
    low, high = (value * math.sqrt(df / float(chdtri(df, upper))) for upper in (0.05, 0.95))
    return Spread(value=value, low=low, high=high)


def _first_runs(runs: Runs) -> Iterator[FirstRun]:
    """Yield first runs on a start that differ from later ones in at least half of the metrics."""
    for (cell, prompts), of_load in _by_load(runs).items():
        later: dict[str, list[CalibrationRun]] = {}
        first: dict[str, list[CalibrationRun]] = {}
        for run in of_load:
            if run.order == 0:
                first.setdefault(run.role, []).append(run)
            elif run.role == MEASURED:
                later.setdefault(run.start, []).append(run)
        for role, candidates in first.items():
            followed = [run for run in candidates if run.start in later]
            if len(followed) < (MIN_STARTS if role == MEASURED else 1):
                continue
            changes = dict(_changes(followed, later))
            if 2 * len(changes) >= len(followed[0].values):
                starts_left = sum(len(runs) > 1 for runs in later.values())
                yield FirstRun(
                    cell=cell,
                    prompts=prompts,
                    role=role,
                    starts=len(followed),
                    changes=changes,
                    is_left_out=role == MEASURED and starts_left >= MIN_STARTS,
                )


def _changes(first: Runs, later: Mapping[str, Runs]) -> Iterator[tuple[str, float]]:
    """Yield metrics of which first runs differ in one direction by more than a spread."""
    for name in METRICS.times:
        better = METRICS[name].better
        logs = {
            start: [signed_log(run.values[name], better) for run in runs if name in run.values]
            for start, runs in later.items()
        }
        distances = [
            signed_log(run.values[name], better) - statistics.median(logs[run.start])
            for run in first
            if name in run.values and logs[run.start]
        ]
        pairs = [abs(a - b) for start in logs.values() for a, b in combinations(start, 2)]
        if not (distances and pairs):
            continue
        change = statistics.median(distances)
        agreeing = sum(distance * change >= 0 for distance in distances)
        large = abs(change) > PAIRS_SD * statistics.median(pairs)
        if large and agreeing >= SAME_DIRECTION * len(distances):
            yield name, change


def _ratios(noise: Sequence[CellNoise]) -> Iterator[LoadRatio]:
    """Yield the change of the spread within a start from each number of prompts to the next."""
    by_load: dict[tuple[int, int], list[float]] = {}
    series: dict[tuple[object, str], list[CellNoise]] = {}
    for each in noise:
        if each.within is not None and each.within.value > 0:
            series.setdefault((each.cell, each.metric), []).append(each)
    for loads in series.values():
        for short, long in pairwise(sorted(loads, key=lambda each: each.prompts)):
            if short.within is not None and long.within is not None:
                ratio = long.within.value / short.within.value
                by_load.setdefault((short.prompts, long.prompts), []).append(ratio)
    for (fewer, more), ratios in sorted(by_load.items()):
        yield LoadRatio(short=fewer, long=more, ratio=statistics.median(ratios), pairs=len(ratios))


def _by_metric(noise: Sequence[CellNoise]) -> dict[str, list[CellNoise]]:
    return {
        name: of_metric
        for name in METRICS.times
        if (of_metric := [each for each in noise if each.metric == name])
    }


def _metric_noise(
    noise: Sequence[CellNoise], judgement: Judgement, *, nights: int
) -> Iterator[MetricNoise]:
    """Yield the noise of each metric over all cells, with the proposed floor.

    The floor is five times the typical spread, in whole percents. A floor below both the default
    and the system's own requires several nights, because the starts of one night do not contain the
    differences between nights.
    """
    for name, of_metric in _by_metric(noise).items():
        nightly = [each.night.value for each in of_metric]
        typical = statistics.median(nightly)
        least = min(METRICS[name].floor, judgement.floor(name))
        wanted = _whole_percents(limit_of(typical))
        is_held = wanted < least and nights < MIN_NIGHTS
        floor = least if is_held else wanted
        noisiest = _whole_percents(limit_of(max(nightly)))
        yield MetricNoise(
            metric=name,
            cells=len(of_metric),
            within=_median([each.within for each in of_metric]),
            between=_median([each.between for each in of_metric]),
            night=typical,
            quietest=min(nightly),
            noisiest=max(nightly),
            floor=floor,
            is_held=is_held,
            sees=min(2 * floor, max(floor, noisiest)),
        )


def _median(spreads: Sequence[Spread | None]) -> float | None:
    values = [spread.value for spread in spreads if spread is not None]
    return statistics.median(values) if values else None


def _whole_percents(fraction: float) -> float:
    return min(MAX_FLOOR, max(1, math.ceil(100 * fraction - 1e-9)) / 100)


def _forecasts(noise: Sequence[CellNoise], judgement: Judgement) -> Iterator[Forecast]:
    """Yield forecasts for the measured loads, for longer ones, and for infinitely long ones."""
    if all(each.within is None for each in noise):
        return
    measured = {each.prompts for each in noise}
    longer = [max(measured) * factor for factor in LONGER]
    for prompts in (None, *(longer[1:] if len(measured) == 1 else longer), math.inf):
        yield _forecast(noise, prompts, judgement)


def _forecast(noise: Sequence[CellNoise], prompts: float | None, judgement: Judgement) -> Forecast:
    spreads = {each: each.at(prompts or each.prompts) for each in noise}
    loads = [
        each.load_s * (prompts or each.prompts) / each.prompts
        for each in noise
        if each.load_s is not None
    ]
    kept = (limit_of(spread) <= judgement.promise(each.metric) for each, spread in spreads.items())
    return Forecast(
        prompts=prompts,
        longest_load_s=max(loads, default=None),
        kept=sum(kept),
        of=len(spreads),
        floors={
            name: limit_of(statistics.median(spreads[each] for each in of_metric))
            for name, of_metric in _by_metric(noise).items()
        },
    )


def _proposed_prompts(forecasts: Sequence[Forecast]) -> int | None:
    """Return the smallest number of prompts with :data:`ENOUGH` of the longest load's gain.

    None if longer loads gain nothing.
    """
    finite = [each for each in forecasts if each.prompts is None or math.isfinite(each.prompts)]
    if not finite or finite[-1].kept <= finite[0].kept:
        return None
    enough = finite[0].kept + ENOUGH * (finite[-1].kept - finite[0].kept)
    best = next(each for each in finite if each.kept >= enough)
    return None if best.prompts is None else int(best.prompts)


def _insensitive_metrics(
    noise: Sequence[CellNoise], judgement: Judgement
) -> Iterator[InsensitiveMetric]:
    for each in noise:
        promise = judgement.promise(each.metric)
        if each.limit > promise:
            spread = math.log1p(promise) / RULE.spreads
            share = (spread / each.night.value) ** 2
            starts = (count for count, part in MEDIAN_VARIANCE.items() if part <= share)
            yield InsensitiveMetric(
                noise=each,
                promise=promise,
                prompts=_prompts_for(each, spread),
                starts=next(starts, None),
            )


def _prompts_for(noise: CellNoise, spread: float) -> int | None:
    """Return the prompts that reduce the spread of nights to *spread*; None if none do."""
    if noise.within is None or noise.between is None or noise.between.value >= spread:
        return None
    room = spread**2 - noise.between.value**2
    factor = math.ceil(noise.within.value**2 / room)
    return noise.prompts * factor if factor <= MAX_FACTOR else None
