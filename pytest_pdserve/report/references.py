"""The output of ``pdserve baseline show``: reference, spread and limit of each cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import date

from pytest_pdserve.judge.cells import references_of
from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.metrics import METRICS

_NINE_IN_TEN = 1.2816
"""Standard deviations that a normal value stays below in nine of ten cases."""
_MEDIAN = math.pi / 2
"""Variance of the median of many normal values, in variances of their mean."""


def min_seen(reference: Reference) -> float:
    """Return the worsening that lies beyond the limit on nine of ten nights, as a signed log.

    For normal noise of :attr:`Reference.spread` in a night and in each night of the reference,
    whose median varies by pi/2 of its variance over their number.
    """
    deviation = reference.spread * math.sqrt(1 + _MEDIAN / reference.nights)
    return reference.limit + _NINE_IN_TEN * deviation


def reference_lines(baseline: Baseline, floors: Mapping[str, float], today: date) -> Iterator[str]:
    """Return a table of each judged metric of each cell, by kind of client.

    :param floors: least limit by metric, as a fraction.
    :param today: what ages are counted to.
    """
    yield baseline.origin
    several = len(baseline.clients) > 1
    rows = [
        (*((client,) if several else ()), *row)
        for client in baseline.clients
        for row in _rows(baseline.of_client(client), floors, today)
    ]
    columns = (
        *(("client",) if several else ()),
        *("topology", "workload", "metric", "unit", "median", "spread", "limit", "sees"),
        *("nights", "newest", "age"),
    )
    yield from text_table(columns, rows, "l" * several + "llllrrrrrlr")
    yield (
        "spread: standard deviation of the nights; limit: how much worse FAILs or is suspicious; "
        "sees: how much worse it must be to lie beyond the limit on 9 of 10 nights"
    )


def _rows(
    baseline: Baseline, floors: Mapping[str, float], today: date
) -> Iterator[tuple[str, ...]]:
    for key in sorted(baseline.keys):
        cell = baseline.cells[key[0]][key[1]]
        for name, reference in references_of(cell, floors).items():
            better = METRICS[name].better
            yield (
                *(*key, name, METRICS[name].unit, number(as_value(reference.median, better))),
                f"{reference.spread:.1%}".replace("%", " %"),
                percent(as_change(reference.limit, better)),
                percent(as_change(min_seen(reference), better)),
                str(reference.nights),
                *_age(baseline, cell, name, today),
            )


def _age(baseline: Baseline, cell: CellBaseline, metric: str, today: date) -> tuple[str, str]:
    """Return the date of the newest night that has the metric, and its age."""
    newest = [night.session for night in cell.nights if metric in night.values][-1]
    source = next(each for each in baseline.sessions if each.id == newest)
    began = source.session.began
    if source.simulated_night is not None:
        return f"simulated night {source.simulated_night}", "-"
    if began is None:
        return "-", "-"
    return began.date().isoformat(), f"{(today - began.date()).days} d"
