"""Report cells to pytest-benchmark: the measured metrics, not the duration of the test."""

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

_OPTIONS = ("json", "save", "autosave", "compare", "histogram")


def is_requested(config: pytest.Config) -> bool:
    """Tell whether pytest-benchmark is installed, and should store, compare or draw results."""
    return any(config.getoption(f"benchmark_{flag}", None) for flag in _OPTIONS)


def measure_with(benchmark: Any, measure: Callable[[], Cell]) -> Cell:
    """Measure a cell inside pytest-benchmark's fixture, and discard the duration.

    :param benchmark: the fixture ``benchmark``.
    """
    cell: Cell = benchmark.pedantic(measure, rounds=1, iterations=1)
    if benchmark.stats is not None:  # None under pytest-xdist, where it is disabled
        benchmark.stats.stats.data.clear()
        benchmark.has_error = True  # so that it is left out without a value
    return cell


def add_metrics(benchmark: Any, cell: Cell) -> None:
    """Add a benchmark for each metric of a cell, in its own group, with a round per start.

    pytest-benchmark has only seconds, where less is better: a throughput is stored as the seconds
    per token or request, so that the column OPS shows the throughput.
    """
    from pytest_pdserve.results.history import one_per_start

    benchmark.extra_info |= cell.records[-1].metrics
    if benchmark.stats is None:
        return
    first, name, fullname = benchmark.stats, benchmark.name, benchmark.fullname
    for metric, seconds in _seconds(one_per_start(cell.records)).items():
        added = first
        if benchmark.has_error:
            benchmark.has_error = False
        else:
            added = copy.copy(first)
            added.stats = type(first.stats)()
            benchmark._add_stats(added)  # noqa: SLF001 - pytest-benchmark 5.0 to 5.3
        added.name, added.fullname = f"{name} {metric}", f"{fullname} {metric}"
        added.group = metric
        for value in seconds:
            added.stats.update(value)


def _seconds(records: Sequence[Record]) -> dict[str, list[float]]:
    """Return the metrics that baselines keep, as seconds of each run."""
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
