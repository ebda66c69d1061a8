"""How far pairs of runs spread: what the nights of a baseline say of a claim's ratio."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection
from collections.abc import Iterator

from pytest_pdserve.judge.ratios import PairSpread
from pytest_pdserve.values.baseline import Baseline

_LEAST = 5
"""Nights that two topologies must have in common to say anything."""


def pair_spread(baseline: Baseline | None, metrics: Collection[str]) -> PairSpread | None:
    """What history knows of the pairs of a claim over *metrics*: that of the noisiest of them.

    :returns: None if there is a metric of which the baseline cannot tell.
    """
    if baseline is None:
        return None
    found = [_spread_of(baseline, metric) for metric in metrics]
    known = [spread for spread in found if spread is not None]
    return max(known, key=lambda s: s.sd) if known and len(known) == len(found) else None


def _spread_of(baseline: Baseline, metric: str) -> PairSpread | None:
    """Standard deviation of the log ratio of two topologies in a cell, of runs of one night.

    The median over pairs and cells, so that a noisy one does not decide for all; its degrees of
    freedom are those of a single one, as cells share their nights.

    :returns: None if no pair has enough nights in common.
    """
    samples = list(_log_ratios(baseline, metric))
    if not samples:
        return None
    return PairSpread(
        sd=statistics.median(statistics.stdev(sample) for sample in samples),
        freedom=float(min(len(sample) for sample in samples) - 1),
    )


def _log_ratios(baseline: Baseline, metric: str) -> Iterator[list[float]]:
    for first, second in itertools.combinations(baseline.cells.values(), 2):
        for workload in sorted(set(first) & set(second)):
            sides = [cells[workload].get(metric) for cells in (first, second)]
            values = [side.values if side else () for side in sides]
            sample = [
                math.log(a) - math.log(b)
                for a, b in zip(*values, strict=False)
                if a is not None and b is not None
            ]
            if len(sample) >= _LEAST:
                yield sample
