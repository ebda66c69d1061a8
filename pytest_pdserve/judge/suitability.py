"""What speaks against nights as a baseline: values far from the others, and change on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import as_fraction
from pytest_pdserve.judge.estimation import directions
from pytest_pdserve.judge.estimation import drop_outliers
from pytest_pdserve.judge.estimation import signed_log
from pytest_pdserve.judge.expectation import baseline_values
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import Rules

_LEAST = 8
"""Runs without which halves are not compared."""
_ERROR = 0.01
"""Chance that unchanged nights are said to have changed, over all tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A test whose newer half of nights differs from the older."""

    cell: tuple[str, str]
    """Topology and workload id."""
    metric: str
    """Metric."""
    worse: float
    """By which fraction the newer half is worse; negative is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suitability:
    """What was seen in the values of a baseline."""

    values: int
    """Values in all."""
    strays: int
    """Values that are kept in the file, but are too far from the others to count."""
    changes: tuple[Change, ...]
    """Tests that changed on the way, the largest first."""


def suitability(baseline: Baseline, rules: Rules) -> Suitability:
    """Tell whether the values of a baseline are of one kind.

    Halves are compared by Welch's t at 1 % over all tests, and by the practical floor.
    """
    keys, metrics, values = baseline_values(baseline)
    logs = signed_log(values, metrics)
    kept = drop_outliers(logs, mads=rules.outlier_mads, sd_floor=rules.sd_floor)
    tests = int(np.sum(np.any(~np.isnan(kept), axis=-1)))
    changes = []
    for c, key in enumerate(keys):
        for m, metric in enumerate(metrics):
            moved = _moved(kept[c, m], _ERROR / max(tests, 1))
            sign = directions([metric])
            worse = float(as_fraction(np.array([moved]), sign)[0])
            if abs(worse) > METRICS[metric].floor:
                changes.append(Change(cell=key, metric=metric, worse=worse))
    return Suitability(
        values=int(np.sum(~np.isnan(logs))),
        strays=int(np.sum(~np.isnan(logs) & np.isnan(kept))),
        changes=tuple(sorted(changes, key=lambda change: -abs(change.worse))),
    )


def _moved(logs: Floats, level: float) -> float:
    """By how much the newer half lies above the older, if that is no chance; else 0."""
    present = logs[~np.isnan(logs)]
    if len(present) < _LEAST:
        return 0.0
    older, newer = np.array_split(present, 2)
    if np.ptp(older) == 0 == np.ptp(newer):
        return float(newer[0] - older[0])
    p = stats.ttest_ind(newer, older, equal_var=False).pvalue
    return float(newer.mean() - older.mean()) if p < level else 0.0
