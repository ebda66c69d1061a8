"""Comparison of two cells metric by metric: change, interval, and whether B is worse. Pure.

A value is the geometric mean over starts of the servers, each with its first valid run, or over
nights of a baseline. The interval is Welch's: of the difference of two means of logarithms, whose
spreads need not be equal, with Student's t and the degrees of freedom of Welch and Satterthwaite
(B. L. Welch, Biometrika 34, 1947). It contains the differences between starts; those between nights
only if both sides have several nights.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.judge.cell_pairs import CellPair
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.values.comparison import ComparedCell
from pytest_pdserve.values.comparison import ComparedMetric
from pytest_pdserve.values.comparison import ComparedValue
from pytest_pdserve.values.comparison import Says
from pytest_pdserve.values.measurements import MeasuredCell
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Metric
from pytest_pdserve.values.numbers import growth

CONFIDENCE = 0.95
"""Of each interval alone: of twenty metrics without any change, one is outside its interval."""
METHOD = (
    "Values are geometric means over starts of the servers, each with its first valid run, or over "
    f"nights of a baseline. Interval of the change: {100 * CONFIDENCE:.0f} %, Welch's t on "
    "logarithms, of every metric by itself; there is none with fewer than two starts or nights on "
    "a side."
)
_SAME = 0.0005
"""Change, as a fraction, that is shown as 0.0 %."""
_WORSE: Mapping[bool, Says] = {True: "worse", False: "better"}


def compare_cell(pair: CellPair) -> ComparedCell:
    """Return the comparison of each metric of two cells.

    Invalid and voided values are listed, but not compared.
    """
    topologies = pair.a.topology, pair.b.topology
    workloads = pair.a.workload_id, pair.b.workload_id
    for letter, cell in (("A", pair.a), ("B", pair.b)):
        if not cell.counted:
            why = f"every run of {letter} is invalid: {cell.runs[0].invalid[0]}"
            return ComparedCell(topologies=topologies, workloads=workloads, metrics=(), why=why)
    metrics = tuple(_metrics(pair.a, pair.b))
    return ComparedCell(topologies=topologies, workloads=workloads, metrics=metrics)


def _metrics(a: MeasuredCell, b: MeasuredCell) -> Iterator[ComparedMetric]:
    for name, metric in METRICS.items():
        if any(name in run.metrics for run in (*a.counted, *b.counted)):
            yield compare_metric(metric, a, b)


def compare_metric(metric: Metric, a: MeasuredCell, b: MeasuredCell) -> ComparedMetric:
    """Return the comparison of one metric of two cells."""
    ones, others = _values(metric.name, a), _values(metric.name, b)
    one, other = _value(metric.name, a, ones), _value(metric.name, b, others)
    change = worse = interval = None
    if one.value is not None and other.value is not None:
        change = _change(one.value, other.value)
        if metric.better != "equal" and min(one.value, other.value) > 0:
            logs = [signed_log(value, metric.better) for value in (one.value, other.value)]
            worse = growth(logs[1] - logs[0])
            interval = ratio_interval(ones, others)
    return ComparedMetric(
        metric=metric.name,
        unit=metric.unit,
        better=metric.better,
        judged=metric.judged,
        a=one,
        b=other,
        change=change,
        worse=worse,
        interval=interval,
        says=_says(metric, one, other, interval),
    )


def _values(metric: str, cell: MeasuredCell) -> tuple[float, ...]:
    """Return the values that count; none if a finding voids the metric in any of the runs."""
    if any(metric in run.voids for run in cell.counted):
        return ()
    return tuple(run.metrics[metric] for run in cell.counted if metric in run.metrics)


def _value(metric: str, cell: MeasuredCell, values: Sequence[float]) -> ComparedValue:
    if values:
        positive = min(values) > 0
        value = statistics.geometric_mean(values) if positive else statistics.median(values)
        same = min(values) == max(values)  # avoids rounding errors of logarithms
        return ComparedValue(value=values[0] if same else value, counted=len(values))
    why = next((run.voids[metric] for run in cell.counted if metric in run.voids), "")
    return ComparedValue(value=None, counted=0, void=bool(why), why=why or "not measured")


def _change(a: float, b: float) -> float | None:
    """Return B over A, less 1; 0 where both are 0, None where only A is, or one is negative."""
    if a == b:
        return 0.0
    if a <= 0 or b < 0:
        return None
    return growth(math.log(b) - math.log(a)) if b > 0 else -1.0


def _says(
    metric: Metric,
    a: ComparedValue,
    b: ComparedValue,
    interval: tuple[float, float] | None,
) -> Says:
    if a.value is None or b.value is None:
        return "not compared"
    if metric.better == "equal":
        return "equal" if a.value == b.value else "differs"
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return "unclear"
    if a.value == b.value or abs(b.value - a.value) < _SAME * a.value:
        return "equal"
    return _WORSE[(b.value > a.value) is (metric.better == "lower")]


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float] | None:
    """Return Welch's interval of the change from *a* to *b*, as fractions, lower end first.

    :returns: None with fewer than two values on a side, with values that are not above 0, or if
        neither side has any spread.
    """
    if min(len(a), len(b)) < 2 or min(*a, *b) <= 0:
        return None
    logs = [[math.log(value) for value in side] for side in (a, b)]
    shares = [statistics.variance(side) / len(side) for side in logs]
    error = sum(shares)
    if not error:
        return None
    from scipy.special import stdtrit

    freedom = error**2 / sum(s**2 / (len(x) - 1) for s, x in zip(shares, logs, strict=True))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(error)
    middle = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    return growth(middle - half), growth(middle + half)
