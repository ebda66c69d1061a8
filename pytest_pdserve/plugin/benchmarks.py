"""Cells as benchmarks of pytest-benchmark: our metrics, not the time that the client took."""

from __future__ import annotations

import copy
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_pdserve.values.metrics import METRICS

if TYPE_CHECKING:
    from pytest_pdserve.session.cell import Cell
    from pytest_pdserve.values.record import Record

_ASKED_BY = ("json", "save", "autosave", "compare", "histogram")


def is_asked(config: pytest.Config) -> bool:
    """Tell whether pytest-benchmark is there and was asked to keep, compare or draw results."""
    return any(config.getoption(f"benchmark_{flag}", None) for flag in _ASKED_BY)


def measure_with(benchmark: Any, measure: Callable[[], Cell]) -> Cell:
    """Measure a cell inside pytest-benchmark's fixture, and keep the time that this took out of it.

    :param benchmark: the fixture ``benchmark``.
    """
    cell: Cell = benchmark.pedantic(measure, rounds=1, iterations=1)
    if benchmark.stats is not None:  # None under pytest-xdist, where it is disabled
        benchmark.stats.stats.data.clear()
        benchmark.has_error = True  # so that one without a value is left out
    return cell


def add_metrics(benchmark: Any, cell: Cell) -> None:
    """Make a benchmark of each metric of a cell, in a group of its own, with a round per start.

    pytest-benchmark knows seconds only, of which fewer are better: a throughput is stored as the
    seconds of one token or request, so that its column OPS shows the throughput.
    """
    from pytest_pdserve.results.history import one_a_start

    benchmark.extra_info |= cell.records[-1].metrics
    if benchmark.stats is None:
        return
    first, name, fullname = benchmark.stats, benchmark.name, benchmark.fullname
    for metric, seconds in _seconds(one_a_start(cell.records)).items():
        made = first
        if benchmark.has_error:
            benchmark.has_error = False
        else:
            made = copy.copy(first)
            made.stats = type(first.stats)()
            benchmark._add_stats(made)  # noqa: SLF001 - pytest-benchmark 5.0 to 5.3
        made.name, made.fullname = f"{name} {metric}", f"{fullname} {metric}"
        made.group = metric
        for value in seconds:
            made.stats.update(value)


def _seconds(records: Sequence[Record]) -> dict[str, list[float]]:
    """Return the seconds of each run, by metric, of those that nights of a baseline keep."""
    from pytest_pdserve.values.record import values_of

    found = {}
    for name in METRICS.kept:
        values = values_of(records, name)
        if not values or min(values) <= 0:
            continue
        if METRICS[name].is_throughput:
            found[name] = [1 / value for value in values]
        elif METRICS[name].unit == "ms":
            found[name] = [value / 1000 for value in values]
    return found
