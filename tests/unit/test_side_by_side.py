"""One metric of two sides: what counts, its change, its interval, and what B is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import ttest_ind

from pytest_pdserve.judge.cell_pairs import CellPair
from pytest_pdserve.judge.cell_pairs import LoadDifferences
from pytest_pdserve.judge.side_by_side import compare_cell
from pytest_pdserve.judge.side_by_side import compare_metric
from pytest_pdserve.judge.side_by_side import ratio_interval
from pytest_pdserve.values.comparison import ComparedMetric
from pytest_pdserve.values.measurements import MeasuredCell
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.metrics import METRICS

SAMPLES = {
    "two each": ((100.0, 104.0), (110.0, 113.0)),
    "unequal numbers": ((100.0, 104.0, 99.0), (110.0, 113.0, 108.0, 111.0, 109.0)),
    "unequal spreads": ((100.0, 100.1, 99.9), (80.0, 130.0, 110.0)),
    "no spread on one side": ((100.0, 100.0), (110.0, 113.0)),
    "large numbers": ((1e15, 1.1e15), (1e15, 1.2e15)),
}


def run(value: float = 100.0, *, metric: str = "mean_ttft_ms", **fields: Any) -> MeasuredRun:
    made = MeasuredRun(
        where="here",
        topology="1p3d",
        workload_id="random-512-256-n4",
        evidence=("session", "start 0"),
        client="vllm",
        metrics={metric: value},
    )
    return replace(made, **fields)


def starts(values: Sequence[float], metric: str = "mean_ttft_ms") -> MeasuredCell:
    """Return a cell with a run on a start of its own for each value."""
    runs = [
        run(value, metric=metric, evidence=("session", f"start {number}"))
        for number, value in enumerate(values)
    ]
    return MeasuredCell(runs=tuple(runs))


def compared(
    a: Sequence[float], b: Sequence[float], metric: str = "mean_ttft_ms"
) -> ComparedMetric:
    return compare_metric(METRICS[metric], starts(a, metric), starts(b, metric))


@pytest.mark.parametrize("sides", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.filterwarnings("ignore:Precision loss")
def test_the_interval_is_welchs_of_logarithms(
    sides: tuple[tuple[float, ...], tuple[float, ...]],
) -> None:
    a, b = sides
    logs = [[math.log(value) for value in side] for side in (b, a)]
    ends = ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert ratio_interval(a, b) == pytest.approx([math.expm1(end) for end in ends])


@pytest.mark.parametrize(
    ("a", "b"),
    [((100.0,), (110.0, 111.0)), ((100.0, 101.0), (110.0,)), ((0.0, 1.0), (1.0, 1.1))],
    ids=["one start of A", "one start of B", "a value of 0"],
)
def test_there_is_no_interval_without_two_positive_values_a_side(
    a: tuple[float, ...], b: tuple[float, ...]
) -> None:
    assert ratio_interval(a, b) is None


def test_there_is_no_interval_where_nothing_spreads() -> None:
    assert ratio_interval((100.0, 100.0), (110.0, 110.0)) is None


def test_one_interval_in_twenty_misses_a_change_that_is_not_there() -> None:
    source = random.Random(3)
    draws = 2000

    def side(spread: float) -> tuple[float, ...]:
        return tuple(math.exp(source.gauss(0, spread)) for _ in range(4))

    intervals = [ratio_interval(side(0.01), side(0.02)) for _ in range(draws)]
    misses = sum(found is not None and not found[0] <= 0 <= found[1] for found in intervals)
    assert 0.035 < misses / draws < 0.065


@pytest.mark.parametrize(
    ("metric", "a", "b", "says", "worse"),
    [
        ("mean_ttft_ms", 100.0, 110.0, "worse", 0.10),
        ("mean_ttft_ms", 110.0, 100.0, "better", 100 / 110 - 1),
        ("output_throughput", 500.0, 250.0, "worse", 1.0),
        ("output_throughput", 250.0, 500.0, "better", -0.5),
        ("mean_ttft_ms", 100.0, 100.04, "equal", 0.0004),
        ("mean_ttft_ms", 100.0, 100.06, "worse", 0.0006),
        ("failed", 0.0, 3.0, "differs", None),
        ("completed", 1024.0, 1024.0, "equal", None),
        ("p50_itl_ms", 0.0, 0.0, "equal", None),
        ("p50_itl_ms", 0.0, 1.0, "worse", None),
    ],
)
def test_worse_is_told_from_better_by_the_metrics_direction(
    metric: str, a: float, b: float, says: str, worse: float | None
) -> None:
    found = compared([a], [b], metric)
    assert found.says == says
    assert found.worse == (None if worse is None else pytest.approx(worse))


@pytest.mark.parametrize(
    ("b", "says"),
    [((110.0, 111.0, 112.0), "worse"), ((99.0, 104.0, 102.0), "unclear")],
    ids=["beyond the interval", "within it"],
)
def test_a_change_within_its_interval_is_unclear(b: tuple[float, ...], says: str) -> None:
    found = compared((100.0, 101.0, 102.0), b)
    assert found.interval is not None
    assert found.says == says


def test_the_value_is_the_geometric_mean_and_lies_in_the_middle_of_the_interval() -> None:
    found = compared((100.0, 400.0), (100.0, 100.0))
    assert found.a.value == pytest.approx(200.0)
    assert found.change == pytest.approx(-0.5)
    assert found.interval is not None
    low, high = (1 + end for end in found.interval)
    assert math.sqrt(low * high) == pytest.approx(0.5)


def test_a_start_counts_once_with_its_first_valid_run() -> None:
    runs = (
        run(500.0, invalid=("completed: 3 of 4",)),
        run(100.0),
        run(900.0),
        run(110.0, evidence=("session", "start 1")),
    )
    found = compare_metric(METRICS["mean_ttft_ms"], MeasuredCell(runs=runs), starts([100.0]))
    assert found.a.counted == 2
    assert found.a.value == pytest.approx(math.sqrt(100 * 110))


def test_a_metric_that_is_void_in_one_run_is_named_and_not_compared() -> None:
    runs = (run(), run(evidence=("session", "start 1"), voids={"mean_ttft_ms": "chunks"}))
    found = compare_metric(METRICS["mean_ttft_ms"], starts([100.0]), MeasuredCell(runs=runs))
    assert (found.b.value, found.b.void, found.b.why) == (None, True, "chunks")
    assert (found.says, found.change, found.worse) == ("not compared", None, None)


def test_a_metric_that_one_side_lacks_is_not_compared() -> None:
    pair = CellPair(
        a=starts([1.0], "mean_itl_ms"), b=starts([1.0], "mean_ttft_ms"), loads=LoadDifferences()
    )
    found = {
        each.metric: (each.says, each.a.why, each.b.why) for each in compare_cell(pair).metrics
    }
    assert found == {
        "mean_ttft_ms": ("not compared", "not measured", ""),
        "mean_itl_ms": ("not compared", "", "not measured"),
    }


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_cell_without_a_valid_run_is_named_with_the_reason(letter: str) -> None:
    bad = MeasuredCell(runs=(run(invalid=("completed: 3 of 4",)),))
    a, b = (bad, starts([1.0])) if letter == "A" else (starts([1.0]), bad)
    found = compare_cell(CellPair(a=a, b=b, loads=LoadDifferences()))
    assert found.metrics == ()
    assert found.why == f"every run of {letter} is invalid: completed: 3 of 4"
