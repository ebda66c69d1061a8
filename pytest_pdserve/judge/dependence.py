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
    """Mean correlation of two cells of a topology in one night; never negative.

    Of nights in which both were measured, since topologies may take turns.
    """
    r, there = np.nan_to_num(residuals), (~np.isnan(residuals)).astype(np.float64)
    products: Any = 0.0
    pairs: Any = 0.0
    for family in np.unique(families):
        cells = families == family
        products = products + _pairs_of(r[..., cells, :, :]).sum(axis=-1)
        pairs = pairs + _pairs_of(there[..., cells, :, :]).sum(axis=-1)
    n = _nights_each(there)
    share = products / np.maximum(pairs, 1) * n / np.maximum(n - 1, 1)
    found: Floats = np.clip(share, 0.0, 1.0)[..., None, :]
    return found


def _pairs_of(values: Floats) -> Floats:
    """Sum of the products of every two different cells, both ways."""
    products: Floats = values.sum(axis=-3) ** 2 - (values**2).sum(axis=-3)
    return products


def _nights_each(there: Floats) -> Floats:
    """Mean number of nights of the cells that have any. Shape ``(..., metrics)``."""
    nights = there.sum(axis=-1)
    each: Floats = nights.sum(axis=-2) / np.maximum((nights > 0).sum(axis=-2), 1)
    return each


def lagged(nights: Floats, memory: float) -> Floats:
    """Sum of (1 - j/n) memory^j over lags j < n: what persistence adds to a mean of n nights."""
    n = np.maximum(nights, 1)
    added: Floats = memory / (1 - memory) - memory * (1 - memory**n) / (n * (1 - memory) ** 2)
    return added


def persistence(residuals: Floats, *, memory: float) -> Floats:
    """Share *a* of the variance that lives on from night to night, correlated a memory^k at lag k.

    Matched to the correlations of nights one and two apart. These are about the cell's own mean,
    which takes part of what persists away; the match allows for that.

    :param residuals: in the order of their nights, of cells that have enough of them.
    """
    r, there = np.nan_to_num(residuals), (~np.isnan(residuals)).astype(np.float64)
    n = _nights_each(there)
    mean, lost = 1 / np.maximum(n, 1), 2 / np.maximum(n, 1) * lagged(n, memory)
    square = _mean(r**2, there)
    top, bottom = np.zeros_like(square), np.zeros_like(square)
    for lag in (1, 2):
        both = there[..., lag:] * there[..., :-lag]
        seen = _mean(r[..., lag:] * r[..., :-lag], both) / np.maximum(square, 1e-12)
        known = both.sum(axis=(-3, -1)) > 0
        top += known * (seen * (1 - mean) + mean)
        bottom += known * (memory**lag - lost * (1 - seen))
    found: Floats = np.clip(top / np.maximum(bottom, 0.1), 0.0, 1.0)[..., None, :]
    return found


def _mean(products: Floats, there: Floats) -> Floats:
    """Mean over cells and nights of what is there. Shape ``(..., metrics)``."""
    mean: Floats = products.sum(axis=(-3, -1)) / np.maximum(there.sum(axis=(-3, -1)), 1)
    return mean


def night_share(sharing: Floats, persistence: Floats, *, rules: Rules) -> Floats:
    """ICC: what a study told; without one, what is assumed or the most that shows elsewhere.

    What the cells of a topology share of a night, and what of it lives on in the next, the runs of
    one cell share too. A server's start that cells share counts as the night's here: only a study
    can tell the two apart.
    """
    if rules.icc is not None:
        return np.full_like(sharing, rules.icc)
    shown: Floats = np.maximum(np.maximum(sharing, persistence), rules.assumed_icc)
    return shown


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
