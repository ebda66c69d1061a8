"""From the runs of nights to test statistics, on arrays; shapes as in :mod:`.estimation`.

A run gives ``z``, its distance from the baseline in standard deviations of such a distance. Under
no change z has variance 1, runs of a night share the fraction ICC of the run-to-run part, and
all runs share the error of the baseline's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pytest_pdserve.judge.dependence import lagged
from pytest_pdserve.judge.estimation import Envelopes
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import Ints
from pytest_pdserve.judge.estimation import mean_over
from pytest_pdserve.judge.estimation import median
from pytest_pdserve.values.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Nights:
    """What is kept of nights. Shapes ``(..., cells, metrics)``, or with a last axis of nights."""

    z: Floats
    """Mean of the clipped z of the night's runs; NaN where there was no run."""
    shift: Floats
    """Median distance of the night's runs from the baseline, signed log, not clipped."""
    runs: Floats
    """Runs of the night, whether anything is expected of them or not."""


def standardized(logs: Floats, envelopes: Envelopes, *, clip: float) -> Floats:
    """Clipped z of each run: (y - location) / (s sqrt(1 + 1/N)).

    :param logs: signed log, shape ``(..., cells, metrics, runs)``.
    """
    distance = logs - envelopes.location[..., None]
    clipped: Floats = np.clip(distance / envelopes.scale[..., None], -clip, clip)
    return clipped


def night_of(logs: Floats, envelopes: Envelopes, *, clip: float) -> Nights:
    """Reduce the runs of one night to what later nights need of it."""
    z = standardized(logs, envelopes, clip=clip)
    return Nights(
        z=mean_over(z),
        shift=median(logs - envelopes.location[..., None]),
        runs=np.sum(~np.isnan(logs), axis=-1).astype(np.float64),
    )


def night_variance(runs: Floats, icc: Floats) -> Floats:
    """Variance of the mean of *runs* of one night, in run-to-run variances: ICC + (1 - ICC)/n."""
    variance: Floats = icc + (1 - icc) / np.maximum(runs, 1)
    return variance


def tonight_statistic(night: Nights, envelopes: Envelopes) -> Floats:
    """T = mean(z) sqrt(1 + 1/N) / sqrt(ICC + (1 - ICC)/n + 1/N); of variance 1 under no change."""
    variance = night_variance(night.runs, envelopes.icc) + envelopes.noise
    t: Floats = night.z * envelopes.scale / (envelopes.sd * np.sqrt(variance))
    return t


def window_statistic(past: Nights, envelopes: Envelopes, *, nights: int, rules: Rules) -> Floats:
    """T of the last *nights* nights, which share the error of the baseline and what persists.

    :param past: nights on a last axis, newest last, those without a run first.
    :returns: shape ``(..., cells, metrics)``; NaN where there are fewer nights, or the baseline
        is too short.
    """
    if past.z.shape[-1] < nights:
        return np.full(past.z.shape[:-1], np.nan)
    z, runs = past.z[..., -nights:], past.runs[..., -nights:]
    own = night_variance(runs, envelopes.icc[..., None]).sum(axis=-1)
    variance = own / nights**2 + envelopes.noise
    variance = variance + persistent(envelopes, nights, rules)
    together = z.mean(axis=-1) * envelopes.scale / (envelopes.sd * np.sqrt(variance))
    return np.where(envelopes.given >= rules.least_window_runs, together, np.nan)


def persistent(envelopes: Envelopes, nights: int, rules: Rules) -> Floats:
    """What persistence adds to the variance of the mean of *nights* nights."""
    return 2 * envelopes.persistence * lagged(np.array(float(nights)), rules.memory) / nights


def with_tonight(past: Nights | None, tonight: Nights) -> Nights:
    """Nights on a last axis, tonight last; nights without a run move to the front."""
    both = [
        np.concatenate([before, now[..., None]], axis=-1) if past is not None else now[..., None]
        for before, now in (
            (past.z if past else tonight.z, tonight.z),
            (past.shift if past else tonight.shift, tonight.shift),
            (past.runs if past else tonight.runs, tonight.runs),
        )
    ]
    missing = np.isnan(both[0])
    if np.any(missing):
        order = np.argsort(~missing, axis=-1, kind="stable")
        both = [np.take_along_axis(values, order, axis=-1) for values in both]
    return Nights(z=both[0], shift=both[1], runs=both[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyStatistic:
    """A metric over all cells of a topology. Shapes ``(..., families, metrics)``."""

    t: Floats
    """Mean z over its own standard deviation; NaN with fewer than two cells."""
    df: Floats
    """Degrees of freedom behind the variances of its cells."""
    shift: Floats
    """Mean distance from the baseline, signed log, not clipped."""
    centre: Floats
    """The same of clipped runs, so that a slowed one does not decide what can be ruled out."""
    error: Floats
    """Standard deviation of :attr:`centre` where nothing changed."""


def family_statistic(tonight: Nights, envelopes: Envelopes, *, rules: Rules) -> FamilyStatistic:
    """Mean of clipped z over the cells of a topology, in its own standard deviations.

    Its variance takes the cells' correlation in a night from the baseline: where a topology's
    cells share their nights, nine of them are worth less than nine.
    """
    member = memberships(envelopes.families)
    there = ~np.isnan(tonight.z) & (envelopes.df > 2)
    there = there & (envelopes.given >= rules.least_window_runs)
    tails = envelopes.df / np.maximum(envelopes.df - 2, 0.1)
    unit = (envelopes.scale / envelopes.sd) ** 2
    own = night_variance(tonight.runs, envelopes.icc) + envelopes.noise
    cells = member @ there.astype(np.float64)
    count, enough = np.maximum(cells, 1), cells >= 2

    def mean(values: Floats) -> Floats:
        average: Floats = member @ np.where(there, values, 0.0) / count
        return np.where(enough, average, np.nan)

    common = envelopes.sharing * (1 - 1 / count)
    variance = mean(tails * own / unit) / count + common
    return FamilyStatistic(
        t=mean(tonight.z) / np.sqrt(variance),
        df=mean(np.maximum(envelopes.runs - 1, 1)) * count,
        shift=mean(tonight.shift),
        centre=mean(tonight.z * envelopes.scale),
        error=np.sqrt(mean(envelopes.sd**2 * own) / count + common * mean(envelopes.sd) ** 2),
    )


def memberships(families: Ints) -> Floats:
    """1 where a cell belongs to a family. Shape ``(families, cells)``."""
    numbers = np.arange(families.max(initial=-1) + 1)
    member: Floats = (families == numbers[:, None]).astype(np.float64)
    return member
