"""The output of ``pdserve history trend``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.trend import MIN_NIGHTS
from pytest_pdserve.values.trend import NEARBY
from pytest_pdserve.values.trend import CellChange
from pytest_pdserve.values.trend import DatedChange
from pytest_pdserve.values.trend import MetricChange
from pytest_pdserve.values.trend import StackChange
from pytest_pdserve.values.trend import StackDifference
from pytest_pdserve.values.trend import Trend

_COLUMNS = ("topology", "metric", "cells", "change", "range", "", "largest", "from", "to", "unit")
_NAMES = 4
"""Nodes or versions of one night that a line names."""
_NIGHTS = 10
"""Broken nights that are listed."""
_LABELS = {"vllm": "vLLM", "nixl": "NIXL", "vllm-router": "router"}
"""Names of packages as all messages have them."""


def trend_lines(trend: Trend) -> list[str]:
    """Return each change with its cells and with what else changed, then what is left out."""
    lines = list(_looked_at(trend))
    for change in trend.changes:
        lines += [
            "",
            _heading(change),
            f"  {_stack(change.stack)}{_unknown(change)}",
            *_table(change),
        ]
    least = f"{percent(trend.min_change).removeprefix('+')} or more"
    if not trend.changes and trend.series:
        lines += ["", f"no step and no drift of {least}"]
    notes = [*_broken(trend), *_left_out(trend)]
    return [*lines, *([""] if notes else []), *notes]


def _looked_at(trend: Trend) -> Iterator[str]:
    if trend.first is not None:
        yield (
            f"{trend.cells} cell{'s' * (trend.cells != 1)}, {trend.series} series (a metric of a "
            f"cell each), {trend.nights} nights from {trend.first} to {trend.last}"
        )
    if trend.short:
        yield f"not looked at: {trend.short} series of fewer than {MIN_NIGHTS} nights"
    if not trend.series and not trend.short:
        yield "no night has a value that counts"


def _heading(change: DatedChange) -> str:
    """Return when it was, of what kind, and of which system."""
    if change.kind == "step":
        when = f"{change.first}  step (last night before: {change.since})"
    elif change.goes_on:
        when = f"{change.since}  drift, still going on"
    else:
        when = f"{change.since}  drift until {change.last}"
    client = f", client {change.client_kind}" if change.client_kind else ""
    return f"{when}  {change.system}{client}"


def _unknown(change: DatedChange) -> str:
    return "" if change.nodes_known else "; which nodes served is not recorded"


def _stack(stack: StackChange | None) -> str:
    if stack is None:
        return f"nothing that is recorded changed within {NEARBY} nights"
    changes = "; ".join(_difference(each) for each in stack.differences)
    if not stack.nights_off:
        return f"that night: {changes}"
    count = abs(stack.nights_off)
    nights = "1 night" if count == 1 else f"{count} nights"
    side = "before" if stack.nights_off < 0 else "after"
    return f"nothing that is recorded changed that night; {nights} {side}, {stack.night}: {changes}"


def _difference(each: StackDifference) -> str:
    if each.what == "system file":
        return "hardware or serving arguments in the system file"
    name = _LABELS.get(each.what, each.what)
    return f"{name} {_names(each.before)} -> {_names(each.after)}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _table(change: DatedChange) -> list[str]:
    rows = [_row(each) for each in change.metrics]
    return [f"  {line}" for line in text_table(_COLUMNS, rows, "llrrlllrrl")]


def _row(row: MetricChange) -> tuple[str, ...]:
    changes = sorted(cell.change for cell in row.cells)
    middle = math.expm1(statistics.median(math.log1p(change) for change in changes))
    span = "" if len(changes) == 1 else f"{percent(changes[0])} to {percent(changes[-1])}"
    largest = row.cells[0]
    metric = METRICS.get(row.metric)
    return (
        row.topology,
        row.metric,
        f"{len(row.cells)} of {row.measured}",
        percent(middle),
        span,
        _side(row.metric, middle),
        largest.name.workload,
        *_levels(largest),
        metric.unit if metric else "",
    )


def _levels(cell: CellChange) -> tuple[str, str]:
    return number(cell.before), number(cell.after)


def _side(name: str, change: float) -> str:
    """Return ``worse`` or ``better``; empty for an unknown metric."""
    metric = METRICS.get(name)
    if metric is None or metric.better == "equal":
        return ""
    return "better" if (change > 0) == (metric.better == "higher") else "worse"


def _broken(trend: Trend) -> Iterator[str]:
    if not trend.broken:
        return
    yield "single nights far from the nights around them, of which no change is made:"
    worst = sorted(trend.broken, key=lambda night: -night.series / night.measured)[:_NIGHTS]
    for night in sorted(worst, key=lambda each: (each.system, each.client_kind, each.night)):
        yield f"  {night.night}  {night.system}  {night.series} of {night.measured} series"
    if len(trend.broken) > len(worst):
        yield f"  and {len(trend.broken) - len(worst)} more nights with a smaller share"
    yield "  leave a session out: pdserve history exclude SESSION --reason TEXT"


def _left_out(trend: Trend) -> Iterator[str]:
    for each in trend.excluded:
        night = "no date" if each.night is None else each.night.isoformat()
        yield f"left out: {night}  {each.session} of {each.system}: {each.reason}"
