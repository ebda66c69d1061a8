"""Envelope arithmetic, in one place. The unit of evidence is a run, never a request."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS


def location(values: Sequence[float], better: str) -> float:
    """One number for the runs of a cell: their geometric mean, or the common value of a count.

    Timings vary by factors, so their mean is taken on the log scale.

    :raises ValueError: if there is no run, a timing is not positive, or counts differ.
    """
    if not values:
        raise ValueError("no runs")
    if better == "equal":
        if len(set(values)) > 1:
            raise ValueError(f"counts differ between runs: {sorted(set(values))}")
        return values[0]
    if min(values) <= 0 or not all(map(math.isfinite, values)):
        raise ValueError(f"a timing or rate must be positive and finite: {sorted(values)}")
    return statistics.geometric_mean(values)


def envelope_from_runs(metric: str, values: Sequence[float], floor: float) -> Envelope:
    """The envelope that *values*, one per run of a cell, allow.

    The room is the practical floor of the metric.

    :raises ValueError: as :func:`location`.
    """
    better = METRICS[metric].better
    return Envelope(
        ref=location(values, better),
        rtol=0.0 if better == "equal" else floor,
        better=better,
        unit=METRICS[metric].unit,
        runs=len(values),
    )


def reference(metric: str, values: Sequence[float]) -> float:
    """Expected run of nights whose runs had *values*: their geometric mean without outliers.

    :raises ValueError: as :func:`location`.
    """
    import numpy as np

    from pytest_pdserve.judge import estimation
    from pytest_pdserve.values.rules import Rules

    location(values, METRICS[metric].better)
    logs = estimation.signed_log(np.array(values, dtype=np.float64), [metric])
    rules = Rules()
    kept = estimation.drop_outliers(logs, mads=rules.outlier_mads, sd_floor=rules.sd_floor)
    return float(np.exp(estimation.mean_over(kept) * estimation.directions([metric])).item())


def envelope_of_nights(metric: str, values: Sequence[float | None]) -> Envelope:
    """The envelope of one run a night, which the judgement of nights goes by.

    :param values: one per night, None where there is none.
    :raises ValueError: if there is none at all, or as :func:`location`.
    """
    present = [value for value in values if value is not None]
    known = METRICS[metric]
    return Envelope(
        ref=reference(metric, present),
        rtol=known.outer,
        better=known.better,
        unit=known.unit,
        runs=len(present),
        values=tuple(values),
    )


def ratio(subject: float, other: float) -> float:
    """How many times *other* the *subject* is.

    :raises ValueError: if *other* is not positive, so that there is no ratio.
    """
    if not other > 0:
        raise ValueError(f"no ratio to {other:g}")
    return subject / other
