"""From the values of baseline runs to envelopes of many tests at once, on arrays.

Shapes end in ``(cells, metrics)``, or ``(cells, metrics, runs)``; any number of leading axes may
stand before them. NaN is what was not measured. Everything from :func:`signed_log` on is on the
log scale, and positive is worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import typing as npt
from scipy import special

from pytest_pdserve.judge import dependence
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import Rules

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


def directions(metrics: Sequence[str]) -> Floats:
    """+1 for a metric of which lower is better, -1 for one of which higher is.

    :returns: shape ``(metrics,)``.
    :raises ValueError: if a metric is unknown, or a count, which has no direction.
    """
    signs = {"lower": 1.0, "higher": -1.0}
    for name in metrics:
        if name not in METRICS or METRICS[name].better not in signs:
            raise ValueError(f"{name!r} is no metric that has a better and a worse")
    return np.array([signs[METRICS[name].better] for name in metrics])


def signed_log(values: Floats, metrics: Sequence[str]) -> Floats:
    """Logarithm of *values*, signed so that positive is worse.

    :param values: shape ``(..., cells, metrics, runs)``, in the metrics' own units.
    :raises ValueError: if a value that is there is not positive and finite.
    """
    there = ~np.isnan(values)
    if np.any(there & ~(np.isfinite(values) & (values > 0))):
        bad = values[there & ~(np.isfinite(values) & (values > 0))]
        raise ValueError(f"a timing or rate must be positive and finite: {bad[0]:g}")
    return np.log(values) * directions(metrics)[:, None]


def worse_by(fraction: Floats, signs: Floats) -> Floats:
    """Size on the signed log scale of getting worse by *fraction*: times 1 + f, or times 1 - f."""
    size: Floats = signs * np.log1p(signs * fraction)
    return size


def as_fraction(shift: Floats, signs: Floats) -> Floats:
    """Inverse of :func:`worse_by`: by which fraction a metric that moved by *shift* is worse."""
    fraction: Floats = signs * np.expm1(signs * shift)
    return fraction


def median(values: Floats) -> Floats:
    """Median over the last axis of what is there; NaN where nothing is.

    ``np.nanmedian`` does the same, twenty times slower on short axes.
    """
    ranked = np.sort(values, axis=-1)
    counts = np.sum(~np.isnan(values), axis=-1, keepdims=True)
    low = np.take_along_axis(ranked, np.maximum((counts - 1) // 2, 0), axis=-1)
    high = np.take_along_axis(ranked, np.minimum(counts // 2, values.shape[-1] - 1), axis=-1)
    middle: Floats = ((low + high) / 2)[..., 0]
    return np.where(counts[..., 0] > 0, middle, np.nan)


def mean_over(values: Floats) -> Floats:
    """Mean over the last axis of what is there; NaN where nothing is, without a warning."""
    there = ~np.isnan(values)
    counts = there.sum(axis=-1)
    sums = np.where(there, values, 0.0).sum(axis=-1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def drop_outliers(values: Floats, *, mads: float, sd_floor: float) -> Floats:
    """*values* with NaN in place of what lies farther than *mads* MAD from the median.

    The MAD is scaled to estimate a standard deviation, as statsmodels and most tables do: six
    unscaled ones would drop what normal noise does, and make the rest look too quiet. It counts as
    *sd_floor* at least, so that equal values do not make another an outlier.
    """
    centre = median(values)[..., None]
    spread = median(np.abs(values - centre))[..., None] / special.ndtri(0.75)
    with np.errstate(invalid="ignore"):
        near = np.abs(values - centre) <= mads * np.maximum(spread, sd_floor)
    return np.where(near, values, np.nan)


def inverse_trigamma(values: Floats) -> Floats:
    """Where the trigamma function has *values* (> 0), by Newton steps on its reciprocal.

    Smyth, Limma (2004), appendix: started at ``1/2 + 1/y`` the steps converge monotonically.
    """
    safe = np.clip(values, 1e-7, 1e7)
    found: Floats = 0.5 + 1.0 / safe
    for _ in range(50):
        trigamma = special.polygamma(1, found)
        step = trigamma * (1.0 - trigamma / safe) / special.polygamma(2, found)
        found = found + step
        if np.all(np.abs(step) <= 1e-10 * found):
            break
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What the cells of a metric say together about the variance of one of them."""

    df: Floats
    """Degrees of freedom d0 that it is worth; 0 with too few cells. Shape ``(..., metrics)``."""
    variance: Floats
    """Typical variance s0^2 of a run. Shape ``(..., metrics)``."""


def prior_of(variances: Floats, df: Floats) -> Prior:
    """Prior of the variances of a metric's cells, by moments of log s^2 (Smyth 2004, section 6.2).

    Where cells scatter no more than their degrees of freedom explain, all share one variance;
    d0 is then all degrees of freedom there are, never infinite. Under three cells there is no
    prior.

    :param variances: shape ``(..., cells, metrics)``, positive.
    :param df: degrees of freedom of each; cells with none are left out.
    """
    use = (df >= 1) & np.isfinite(variances)
    cells = use.sum(axis=-2)
    half = np.where(use, df, 1.0) / 2
    logs = np.where(use, np.log(np.where(use, variances, 1.0)), 0.0)
    e = np.where(use, logs - special.digamma(half) + np.log(half), 0.0)
    centre = e.sum(axis=-2) / np.maximum(cells, 1)
    around = np.where(use, (e - centre[..., None, :]) ** 2, 0.0).sum(axis=-2)
    known = np.where(use, special.polygamma(1, half), 0.0).sum(axis=-2) / np.maximum(cells, 1)
    excess = around / np.maximum(cells - 1, 1) - known
    pooled = np.where(use, df, 0.0).sum(axis=-2)
    scatter = excess > 0
    d0 = np.where(scatter, 2 * inverse_trigamma(np.where(scatter, excess, 1.0)), pooled)
    d0 = np.minimum(d0, pooled)
    ok = cells >= 3
    h0 = np.where(ok, d0, 2.0) / 2
    moments = np.exp(centre + special.digamma(h0) - np.log(h0))
    common = np.where(use, df * variances, 0.0).sum(axis=-2) / np.maximum(pooled, 1)
    s02 = np.where(scatter, moments, common)
    return Prior(df=np.where(ok, d0, 0.0), variance=np.where(ok, s02, np.nan))


def shrink(variances: Floats, df: Floats, prior: Prior) -> tuple[Floats, Floats]:
    """Posterior variance and its degrees of freedom: the mean of own and prior, by their worth."""
    d0 = prior.df[..., None, :]
    own = np.where(df >= 1, np.nan_to_num(variances) * df, 0.0)
    total = np.where(df >= 0, np.maximum(df, 0.0) + d0, np.nan)
    known = total > 0
    lent = d0 * np.where(d0 > 0, prior.variance[..., None, :], 0.0)
    posterior = (own + lent) / np.where(known, total, 1.0)
    return np.where(known, posterior, np.nan), np.where(known, total, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelopes:
    """What the baseline leads to expect of every test. Shapes ``(..., cells, metrics)``."""

    metrics: tuple[str, ...]
    """Names along the last axis."""
    families: Ints
    """Number of the topology of each cell, from 0. Shape ``(cells,)``."""
    given: Floats
    """Baseline runs that were there."""
    runs: Floats
    """Baseline runs N that were kept."""
    location: Floats
    """Expected run, signed log."""
    sd: Floats
    """Run-to-run standard deviation after shrinking, log scale."""
    df: Floats
    """Degrees of freedom of :attr:`sd`; NaN where nothing is known."""
    sharing: Floats
    """Correlation of the cells of a topology in one night. Shape ``(..., 1, metrics)``."""
    icc: Floats
    """Share of variance that runs of one night have in common. Shape ``(..., 1, metrics)``."""
    noise: Floats
    """Variance of :attr:`location` in run-to-run variances: 1/N, and more where nights persist."""
    persistence: Floats
    """Share of variance that lives on from night to night. Shape ``(..., 1, metrics)``."""
    steady: Bools
    """Whether one night can carry a FAIL. Shape ``(..., 1, metrics)``."""
    floor: Floats
    """Least effect that may FAIL, log scale. Shape ``(metrics,)``."""
    margin: Floats
    """Effect that a PASS rules out, log scale. Shape ``(metrics,)``."""

    @property
    def scale(self) -> Floats:
        """Standard deviation of one run's distance from :attr:`location`: s sqrt(1 + 1/N)."""
        scale: Floats = self.sd * np.sqrt(1 + 1 / np.maximum(self.runs, 1))
        return scale

    def room(self, p: float) -> Floats:
        """How far above :attr:`location` one run lies with probability *p*; at least the floor."""
        return np.maximum(upper_t(self.df, p) * self.scale, self.floor)


def envelopes_from_runs(
    values: Floats,
    metrics: Sequence[str],
    families: Ints,
    *,
    rules: Rules,
    floors: Floats | None = None,
) -> Envelopes:
    """Envelopes of all tests from the values of their baseline runs.

    :param values: shape ``(..., cells, metrics, runs)``, in the metrics' own units; the same
        place on the last axis is the same night.
    :param families: number of the topology of each cell.
    :param floors: practical floors as fractions, shape ``(metrics,)``; the metrics' own if None.
    :raises ValueError: if a value is not positive, or a metric has no direction.
    """
    logs = signed_log(values, metrics)
    kept = drop_outliers(logs, mads=rules.outlier_mads, sd_floor=rules.sd_floor)
    given, seen = _count(logs), _spread_of(kept, rules.sd_floor)
    residuals = np.clip(seen.standardized(kept), -rules.clip, rules.clip)
    share = _persistence(residuals, given, rules)
    together = dependence.sharing(residuals, families)
    floor, margin = _floor_and_margin(metrics, floors)
    return Envelopes(
        metrics=tuple(metrics),
        families=families,
        given=given,
        runs=seen.runs,
        location=seen.location,
        sd=seen.sd,
        df=seen.df,
        sharing=together,
        icc=dependence.night_share(together, share, rules=rules),
        noise=_noise(seen.runs, share, rules),
        persistence=share,
        steady=dependence.steady(seen.standardized(logs), rules=rules),
        floor=floor,
        margin=margin,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """Where the baseline runs of every test lie, as the fields of :class:`Envelopes` say it."""

    runs: Floats
    location: Floats
    sd: Floats
    df: Floats

    def standardized(self, logs: Floats) -> Floats:
        """Return how many standard deviations each run lies from the expected one."""
        distances: Floats = (logs - self.location[..., None]) / self.sd[..., None]
        return distances


def _spread_of(kept: Floats, sd_floor: float) -> _Spread:
    """Return where the runs that were kept lie; cells of a metric share what they say of its sd.

    :param kept: signed log, shape ``(..., cells, metrics, runs)``.
    """
    location, runs = mean_over(kept), _count(kept)
    squares = np.nansum((kept - location[..., None]) ** 2, axis=-1)
    df, least = runs - 1, sd_floor**2
    variances = np.maximum(squares / np.maximum(df, 1), least)
    posterior, total = shrink(variances, df, prior_of(variances, df))
    return _Spread(runs=runs, location=location, sd=np.sqrt(np.maximum(posterior, least)), df=total)


def _count(logs: Floats) -> Floats:
    """Return how many runs of each test are there."""
    counts: Floats = np.sum(~np.isnan(logs), axis=-1).astype(np.float64)
    return counts


def _persistence(residuals: Floats, given: Floats, rules: Rules) -> Floats:
    """Return what lives on from night to night, by the tests whose baseline is long enough."""
    long = np.where(given[..., None] >= rules.least_window_runs, residuals, np.nan)
    return dependence.persistence(long, memory=rules.memory)


def _noise(runs: Floats, persistence: Floats, rules: Rules) -> Floats:
    """Return the variance of the expected run, in run-to-run variances."""
    lagged = dependence.lagged(runs, rules.memory)
    noise: Floats = (1 + 2 * persistence * lagged) / np.maximum(runs, 1)
    return noise


def _floor_and_margin(metrics: Sequence[str], floors: Floats | None) -> tuple[Floats, Floats]:
    """Return the least effect that may FAIL and the effect that a PASS rules out, log scale.

    :param floors: practical floors as fractions; the metrics' own if None.
    """
    signs = directions(metrics)
    own = np.array([METRICS[name].floor for name in metrics]) if floors is None else floors
    margins = np.maximum([METRICS[name].margin for name in metrics], own)
    return worse_by(own, signs), worse_by(margins, signs)


def upper_t(df: Floats, p: float) -> Floats:
    """Value that Student's t of *df* exceeds with probability *p*; NaN where *df* is."""
    values, places = np.unique(df, return_inverse=True)
    quantiles: Floats = -special.stdtrit(values, p)
    return quantiles[places].reshape(df.shape)
