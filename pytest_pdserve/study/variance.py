"""Shares of variance in an A/A study: night, server start, run; on arrays.

One-way analysis of variance with random groups: the mean squares between and within groups give
ICC = (B - W) / (B + (n - 1) W), n being the groups' typical size (Searle, Casella, McCulloch 1992,
section 3.6). Cells of a metric are pooled; the interval counts the groups of one cell only, since
cells share their nights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import Ints
from pytest_pdserve.judge.estimation import as_fraction
from pytest_pdserve.judge.estimation import directions
from pytest_pdserve.judge.estimation import drop_outliers
from pytest_pdserve.judge.estimation import signed_log
from pytest_pdserve.values.calibration import Noise
from pytest_pdserve.values.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One metric of one cell: its runs in the order they were made."""

    values: tuple[float, ...]
    """In the metric's own unit."""
    nights: tuple[str, ...]
    """Night of each."""
    starts: tuple[str, ...]
    """Server start of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Variance of one metric, divided into that between groups and that within."""

    total: float
    """Variance of a value."""
    icc: float
    """Share of it that values of one group have in common."""
    low: float
    """Lower end of its 90 % interval."""
    high: float
    """Upper end of it."""


def noise_of(metric: str, samples: Sequence[Sample], rules: Rules) -> Noise | None:
    """What *samples*, one a cell, say of the noise of *metric*.

    :returns: None unless a cell was run on two nights, and twice in one of them.
    :raises ValueError: if a value is not positive and finite.
    """
    firsts, starts, ahead = [], [], []
    given = dropped = 0
    for sample in samples:
        logs = signed_log(np.array([[sample.values]]), [metric])[0, 0]
        kept = drop_outliers(logs, mads=rules.outlier_mads, sd_floor=rules.sd_floor)
        near = ~np.isnan(kept)
        given, dropped = given + len(near), dropped + int(np.sum(~near))
        start, night = (np.unique(names, return_inverse=True)[1] for names in _names(sample))
        first = np.zeros(len(near), dtype=bool)
        first[np.unique(start, return_index=True)[1]] = True
        firsts.append((logs[first & near], night[first & near]))
        starts.append((logs[near], start[near]))
        later = ~first & near
        for number in np.unique(start[later]):
            if np.any(head := first & near & (start == number)):
                ahead.append(float(logs[head][0] - logs[later & (start == number)].mean()))
    found = shares(firsts)
    if found is None:
        return None
    repeated = shares(starts) if ahead else None
    warmup = as_fraction(np.array([np.mean(ahead)]), directions([metric])) if ahead else None
    return Noise(
        sd=float(np.sqrt(found.total)),
        icc=found.icc,
        icc_low=found.low,
        icc_high=found.high,
        outliers=dropped / given,
        start=None if repeated is None else max(repeated.icc - found.icc, 0.0),
        warmup=None if warmup is None else float(warmup[0]),
    )


def _names(sample: Sample) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return sample.starts, sample.nights


def shares(samples: Sequence[tuple[Floats, Ints]]) -> Shares | None:
    """Divide the variance of the values of several cells, each about its own mean.

    :param samples: per cell its values, log scale, and the number of the group of each.
    :returns: None unless a cell has two groups, and one group two values.
    """
    between = within = 0.0
    df_between = df_within = 0.0
    sizes, dfs = [], []
    for values, groups in samples:
        _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
        means = np.bincount(place, values) / counts
        k, n = len(counts), len(values)
        if k < 2 or n == k:
            continue
        between += float(np.sum(counts * (means - values.mean()) ** 2))
        within += float(np.sum((values - means[place]) ** 2))
        df_between, df_within = df_between + k - 1, df_within + n - k
        sizes.append((n - float(np.sum(counts**2)) / n) / (k - 1))
        dfs.append((k - 1, n - k))
    if not dfs:
        return None
    size = float(np.mean(sizes))
    b, w = between / df_between, within / df_within
    common = max(b - w, 0.0) / size
    total = common + w
    if total == 0.0:
        return Shares(total=0.0, icc=0.0, low=0.0, high=1.0)
    one = tuple(float(np.max([df[i] for df in dfs])) for i in (0, 1))
    quantiles = (special.fdtri(*one, p) for p in (0.95, 0.05))
    low, high = (_icc(b, w * q, size) for q in quantiles)
    return Shares(total=total, icc=common / total, low=low, high=high)


def _icc(between: float, within: float, size: float) -> float:
    below = between + (size - 1) * within
    return max((between - within) / below, 0.0) if below > 0 else 0.0
