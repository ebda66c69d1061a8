"""How noisy a system is when nothing changes, and the floors and loads that follow. Pure.

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
from pytest_pdserve.values.calibration import Blind
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.calibration import CalibrationRun
from pytest_pdserve.values.calibration import CellLoad
from pytest_pdserve.values.calibration import CellNoise
from pytest_pdserve.values.calibration import FirstRun
from pytest_pdserve.values.calibration import Forecast
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
"""How many times longer a load may be proposed."""
MAX_FLOOR = 10.0
"""Largest floor that a system file takes."""
LONGER = (1, 2, 4, 8, 16)
"""How many times longer the loads are of which a forecast is made."""
SAME_DIRECTION = 0.9
"""Share of first runs that differ in one direction where they differ."""
ENOUGH = 0.75
"""A load is long enough that gains this share of what the longest gains."""
PAIRS_SD = 1 / (math.sqrt(2) * statistics.NormalDist().inv_cdf(0.75))
"""Standard deviation of normal values, in medians of the distance of two of them (Shamos 1976;
Rousseeuw and Croux 1993, "Alternatives to the median absolute deviation", section 2)."""
PAIRS_EFFICIENCY = 0.4
"""Share of the degrees of freedom that this estimate makes use of where starts have few runs; 0.86
of many. Simulated, so that intervals hold the true value nine times in ten (docs/calibration.md).
"""
MEDIAN_VARIANCE = {3: 0.4487, 5: 0.2868, 7: 0.2104, 9: 0.1661}
"""Variance of the median of so many normal values, in variances of one of them (Hojo 1931)."""
_ROUNDED = 0.25
"""Values that are equal, and otherwise differ by more than this share of their spread at least,
were rounded."""


def calibrate(series: Series, judgement: Judgement) -> Calibration:
    """Say how noisy a system is, and propose floors and loads.

    :param series: runs between which nothing was changed.
    :param judgement: what the system promises to see.
    """
    measured = [run for run in series.runs if run.role == MEASURED]
    first_runs = tuple(_first_runs(series.runs))
    without_first = {(found.cell, found.prompts) for found in first_runs if found.is_left_out}
    noise: list[CellNoise] = []
    few_starts: list[CellLoad] = []
    for load, runs in _by_load(measured).items():
        kept = [run for run in runs if run.order > 0] if load in without_first else runs
        found = [made for name in METRICS.times if (made := noise_of(name, kept)) is not None]
        noise += found
        few_starts += [] if found else [load]
    longest = [each for each in noise if each.prompts == _most_prompts(noise, each)]
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
        blind=tuple(_blind(longest, judgement)),
        prompts=_proposed_prompts(forecasts),
        first_runs=first_runs,
        ratios=tuple(_ratios(noise)),
        few_starts=tuple(few_starts),
        single_runs=tuple(
            dict.fromkeys((each.cell, each.prompts) for each in noise if each.within is None)
        ),
    )


def _by_load(runs: Runs) -> dict[CellLoad, list[CalibrationRun]]:
    loads: dict[CellLoad, list[CalibrationRun]] = {}
    for run in sorted(runs, key=lambda run: (run.topology, run.cell, run.prompts)):
        loads.setdefault((run.cell, run.prompts), []).append(run)
    return loads


def _most_prompts(noise: Sequence[CellNoise], of: CellNoise) -> int:
    return max(each.prompts for each in noise if each.cell == of.cell)


def noise_of(metric: str, runs: Runs) -> CellNoise | None:
    """Return how *metric* varies over runs of one cell; None if they are of too few starts."""
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
    """Return the spread within a start, between starts and of nights, and whether it is rounded.

    Each is made of distances of pairs, of one start or of two. Distances from a start's median
    would be too small by a third to a half where a start has two or three runs.
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
    """Return the standard deviation of values of which pairs have these distances."""
    if is_rounded:  # most distances are 0 or one step, and so is their median
        return math.sqrt(float(np.mean(distances**2)) / 2)
    return PAIRS_SD * float(np.median(distances))


def _interval(value: float, df: float) -> Spread:
    df *= PAIRS_EFFICIENCY
    low, high = (value * math.sqrt(df / float(chdtri(df, upper))) for upper in (0.05, 0.95))
    return Spread(value=value, low=low, high=high)


def _first_runs(runs: Runs) -> Iterator[FirstRun]:
    """First runs on a start that differ from the later ones in half of the metrics or more."""
    for (cell, prompts), there in _by_load(runs).items():
        later: dict[str, list[CalibrationRun]] = {}
        first: dict[str, list[CalibrationRun]] = {}
        for run in there:
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
    """Metrics of which first runs differ in one direction, typically by more than a spread."""
    for name in METRICS.times:
        better = METRICS[name].better
        logs = {
            start: [signed_log(run.values[name], better) for run in runs if name in run.values]
            for start, runs in later.items()
        }
        apart = [
            signed_log(run.values[name], better) - statistics.median(logs[run.start])
            for run in first
            if name in run.values and logs[run.start]
        ]
        pairs = [abs(a - b) for there in logs.values() for a, b in combinations(there, 2)]
        if not (apart and pairs):
            continue
        change = statistics.median(apart)
        agreeing = sum(each * change >= 0 for each in apart)
        large = abs(change) > PAIRS_SD * statistics.median(pairs)
        if large and agreeing >= SAME_DIRECTION * len(apart):
            yield name, change


def _ratios(noise: Sequence[CellNoise]) -> Iterator[LoadRatio]:
    """How the part within a start changed from each number of prompts to the next larger one."""
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
        name: there
        for name in METRICS.times
        if (there := [each for each in noise if each.metric == name])
    }


def _metric_noise(
    noise: Sequence[CellNoise], judgement: Judgement, *, nights: int
) -> Iterator[MetricNoise]:
    """Every metric over all cells, and the floor that is proposed.

    It is five times the typical spread, in whole percents. A floor that becomes lower than the
    default and the system's own rests on several nights, as what differs from night to night does
    not show in the starts of one.
    """
    for name, there in _by_metric(noise).items():
        nightly = [each.night.value for each in there]
        typical = statistics.median(nightly)
        least = min(METRICS[name].floor, judgement.floor(name))
        wanted = _whole_percents(limit_of(typical))
        is_held = wanted < least and nights < MIN_NIGHTS
        floor = least if is_held else wanted
        noisiest = _whole_percents(limit_of(max(nightly)))
        yield MetricNoise(
            metric=name,
            cells=len(there),
            within=_median([each.within for each in there]),
            between=_median([each.between for each in there]),
            night=typical,
            quietest=min(nightly),
            noisiest=max(nightly),
            floor=floor,
            is_held=is_held,
            sees=min(2 * floor, max(floor, noisiest)),
        )


def _median(spreads: Sequence[Spread | None]) -> float | None:
    known = [spread.value for spread in spreads if spread is not None]
    return statistics.median(known) if known else None


def _whole_percents(fraction: float) -> float:
    return min(MAX_FLOOR, max(1, math.ceil(100 * fraction - 1e-9)) / 100)


def _forecasts(noise: Sequence[CellNoise], judgement: Judgement) -> Iterator[Forecast]:
    """What is expected at the measured loads, at longer ones, and at endless ones."""
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
            name: limit_of(statistics.median(spreads[each] for each in there))
            for name, there in _by_metric(noise).items()
        },
    )


def _proposed_prompts(forecasts: Sequence[Forecast]) -> int | None:
    """Return the least number of prompts that gains most of what the longest load gains.

    None if longer loads gain nothing.
    """
    finite = [each for each in forecasts if each.prompts is None or math.isfinite(each.prompts)]
    if not finite or finite[-1].kept <= finite[0].kept:
        return None
    enough = finite[0].kept + ENOUGH * (finite[-1].kept - finite[0].kept)
    best = next(each for each in finite if each.kept >= enough)
    return None if best.prompts is None else int(best.prompts)


def _blind(noise: Sequence[CellNoise], judgement: Judgement) -> Iterator[Blind]:
    for each in noise:
        promise = judgement.promise(each.metric)
        if each.limit > promise:
            spread = math.log1p(promise) / RULE.spreads
            share = (spread / each.night.value) ** 2
            starts = (count for count, part in MEDIAN_VARIANCE.items() if part <= share)
            yield Blind(
                noise=each,
                promise=promise,
                prompts=_prompts_for(each, spread),
                starts=next(starts, None),
            )


def _prompts_for(noise: CellNoise, spread: float) -> int | None:
    """Return how many prompts bring the spread of nights down to *spread*; None if none do."""
    if noise.within is None or noise.between is None or noise.between.value >= spread:
        return None
    room = spread**2 - noise.between.value**2
    factor = math.ceil(noise.within.value**2 / room)
    return noise.prompts * factor if factor <= MAX_FACTOR else None
