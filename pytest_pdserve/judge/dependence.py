"""How baseline runs hang together, and how far they stray: what a variance does not tell.

Estimated from standardized residuals, pooled over the cells of a metric, since one cell has too
few. Shapes as in :mod:`.estimation`: residuals ``(..., cells, metrics, runs)`` with NaN where there
is none, answers ``(..., 1, metrics)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import typing as npt

from pytest_pdserve.values.rules import Rules

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def sharing(residuals: Floats, families: npt.NDArray[np.intp]) -> Floats:
    """Mean correlation of two cells of a topology in one night; never negative."""
    r = np.nan_to_num(residuals)
    products: Any = 0.0
    pairs = 0
    for family in np.unique(families):
        cells = r[..., families == family, :, :]
        together = cells.sum(axis=-3) ** 2 - (cells**2).sum(axis=-3)
        products = products + together.sum(axis=-1)
        pairs += cells.shape[-3] * (cells.shape[-3] - 1)
    share = products / max(pairs * (r.shape[-1] - 1), 1)
    found: Floats = np.clip(share, 0.0, 1.0)[..., None, :]
    return found


def lagged(nights: Floats, memory: float) -> Floats:
    """Sum of (1 - j/n) memory^j over lags j < n: what persistence adds to a mean of n nights."""
    n = np.maximum(nights, 1)
    added: Floats = memory / (1 - memory) - memory * (1 - memory**n) / (n * (1 - memory) ** 2)
    return added


def persistence(residuals: Floats, *, memory: float) -> Floats:
    """Share *a* of the variance that lives on from night to night, correlated a memory^k at lag k.

    Matched to the correlations of nights one and two apart. These are about the cell's own mean,
    which takes part of what persists away; the match allows for that. One standard error is taken
    off, so that independent nights are mostly seen as such.

    :param residuals: in the order of their nights.
    """
    n = residuals.shape[-1]
    if n < 8:
        return np.zeros((*residuals.shape[:-3], 1, residuals.shape[-2]))
    r = np.nan_to_num(residuals)
    square = np.maximum((r**2).mean(axis=(-3, -1)), 1e-12)
    mean, lost = 1 / n, 2 / n * float(lagged(np.array(float(n)), memory))
    top, bottom = np.zeros_like(square), np.zeros_like(square)
    for lag in (1, 2):
        seen = (r[..., lag:] * r[..., :-lag]).mean(axis=(-3, -1)) / square
        top += seen * (1 - mean) + mean
        bottom += memory**lag - lost * (1 - seen)
    error = np.sqrt(2 / max(r.shape[-3] * (n - 1), 1))
    share: Floats = np.clip((top - error) / np.maximum(bottom, 0.1), 0.0, 1.0)[..., None, :]
    return share


def steady(residuals: Floats, *, rules: Rules) -> Bools:
    """Whether the noise of a metric is such that the runs of one night can carry a FAIL.

    They cannot where a night, or three of four runs, may be far off without cause. Two signs:

    - *Heavy tails*, seen on the better side alone, where slowed runs do not lie: fourth moment over
      squared second of what is below the median (3 for a normal). Half the metric's own, half that
      of all metrics, which is less noisy.
    - *Slowed runs so frequent* that the chance of three among four, over all cells, is more than
      tonight's share of the error budget.

    :param residuals: with the runs that were dropped as outliers.
    """
    with np.errstate(invalid="ignore"):
        better = np.where(residuals < 0, np.maximum(residuals, -6.0), 0.0)
        counts = np.sum(residuals < 0, axis=(-3, -1))
        strays = np.sum(residuals > 3.0, axis=(-3, -1))
    seen = np.sum(~np.isnan(residuals), axis=(-3, -1))
    second, fourth = (better**2).sum(axis=(-3, -1)), (better**4).sum(axis=(-3, -1))
    own = fourth * counts / np.maximum(second, 1e-12) ** 2
    everyone = (
        fourth.sum(axis=-1) * counts.sum(axis=-1) / np.maximum(second.sum(axis=-1), 1e-12) ** 2
    )
    light = (own + everyone[..., None]) / 2 <= rules.heaviest_tails
    ways = np.prod(np.arange(rules.least_runs + 1, rules.most_runs + 1))
    chance = ways * (strays / np.maximum(seen, 1)) ** rules.least_runs * residuals.shape[-3]
    answer: Bools = (light & (chance <= rules.budget.tonight))[..., None, :]
    return answer
