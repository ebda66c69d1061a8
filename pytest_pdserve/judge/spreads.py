"""How far pairs of runs spread: what the nights of a baseline say of the ratio of two sides."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pytest_pdserve.judge.ratios import LEAST_SD
from pytest_pdserve.judge.ratios import PairSpread
from pytest_pdserve.values.rules import Rules

_LEAST = 5
"""Nights that two sides must have in common to say anything."""
Nights = Sequence[float | None]
"""A value per night, None where there is none; nights of two sides are the same."""


def pair_spread(first: Nights, second: Nights) -> PairSpread | None:
    """Standard deviation of the log ratio *first*/*second* of runs of one night.

    It is that of these two sides alone: cells differ in how noisy they are, and the degrees of
    freedom of the t interval are right only for a spread that was seen of the very pair. Nights in
    which a run was slowed as a whole are left out, as an envelope leaves them out.

    :returns: None if they have too few nights in common.
    """
    sample = [
        math.log(a) - math.log(b)
        for a, b in zip(first, second, strict=False)
        if a and b and max(a, b) < math.inf
    ]
    kept = _without_outliers(sample) if len(sample) >= _LEAST else []
    if len(kept) < _LEAST:
        return None
    return PairSpread(sd=statistics.stdev(kept), freedom=float(len(kept) - 1))


def _without_outliers(sample: Sequence[float]) -> list[float]:
    import numpy as np

    from pytest_pdserve.judge.estimation import drop_outliers

    kept = drop_outliers(np.array(sample), mads=Rules().outlier_mads, sd_floor=LEAST_SD)
    return [float(value) for value in kept if not math.isnan(value)]
