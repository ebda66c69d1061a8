"""One metric of one cell over the nights of a history."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from pytest_pdserve.history.served import package_changes
from pytest_pdserve.history.served import served_on
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.limits import reference_of
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.figures.axes import capital
from pytest_pdserve.report.figures.axes import metric_label
from pytest_pdserve.report.figures.axes import metric_title
from pytest_pdserve.report.figures.axes import name_of
from pytest_pdserve.report.figures.axes import plural
from pytest_pdserve.report.figures.axes import scale
from pytest_pdserve.report.figures.plot import Axes
from pytest_pdserve.report.figures.plot import Bounds
from pytest_pdserve.report.figures.plot import Panel
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.style import GREY
from pytest_pdserve.report.figures.style import INK
from pytest_pdserve.report.figures.style import PAPER
from pytest_pdserve.report.figures.style import topology_styles
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.trend import COUNTED_STATUSES
from pytest_pdserve.values.trend import SERIES_COLUMNS
from pytest_pdserve.values.trend import CellChange
from pytest_pdserve.values.trend import SeriesName
from pytest_pdserve.values.trend import Trend

if TYPE_CHECKING:
    import pandas as pd

_ROOM = 0.05
"""Share of a value by which the axis reaches beyond nine in ten nights, if any night is there."""
_MAX_MARKED = 120
"""Nights that have a mark each; of more there is the line alone."""
_VERSIONS = 6
"""Changes of versions that are labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPoint:
    """One night of a cell."""

    night: date
    value: float
    """Median of its runs."""
    lowest: float
    highest: float
    counts: bool
    """True if it is evidence: not invalid and not excluded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSeries:
    """One metric of one cell, night by night."""

    name: SeriesName
    nights: tuple[NightPoint, ...]
    """Oldest first."""
    versions: tuple[tuple[date, str], ...]
    """Night of each change of versions, and the new versions."""
    changes: tuple[CellChange, ...]
    """Steps and drifts."""


def series_of(
    values: pd.DataFrame, sessions: pd.DataFrame, trend: Trend | None
) -> Iterator[NightSeries]:
    """Yield the nights of each metric of each cell.

    :param values: a row for each value of each run (:meth:`.history.store.Store.values`).
    :param sessions: a row for each session (:meth:`.history.store.Store.sessions`).
    :param trend: dated changes; None if none were looked for.
    """
    kept = values[values["night"].notna() & (values["value"] > 0) & (values["value"] < math.inf)]
    versions: dict[str, tuple[tuple[date, str], ...]] = {}
    for key, rows in kept.groupby(list(SERIES_COLUMNS), sort=True):
        assert isinstance(key, tuple)
        name = SeriesName(**dict(zip(SERIES_COLUMNS, map(str, key), strict=True)))
        if name.system not in versions:
            versions[name.system] = tuple(package_changes(served_on(sessions, name.system)))
        yield NightSeries(
            name=name,
            nights=tuple(_nights(rows)),
            versions=versions[name.system],
            changes=tuple(_changes_of(trend, name)),
        )


def _nights(rows: pd.DataFrame) -> Iterator[NightPoint]:
    """Yield the nights of one series; the values that count are shown where a night has any."""
    counted: dict[date, list[float]] = {}
    others: dict[date, list[float]] = {}
    counts = rows["status"].isin(COUNTED_STATUSES) & ~rows["excluded"].astype(bool)
    for day, value, is_counted in zip(rows["night"].dt.date, rows["value"], counts, strict=True):
        (counted if is_counted else others).setdefault(day, []).append(float(value))
    for day in sorted({*counted, *others}):
        values = counted.get(day) or others[day]
        yield NightPoint(
            night=day,
            value=statistics.median(values),
            lowest=min(values),
            highest=max(values),
            counts=day in counted,
        )


def _changes_of(trend: Trend | None, name: SeriesName) -> Iterator[CellChange]:
    for change in trend.changes if trend is not None else ():
        for metric in change.metrics:
            yield from (cell for cell in metric.cells if cell.name == name)


def bounds_of_nights(series: NightSeries) -> Bounds | None:
    """Return reference and limit that the nightly rule makes of the first nights of a series.

    None of fewer nights than make the normal limit, and of a metric that has no direction.
    """
    row = METRICS[series.name.metric]
    first = [point.value for point in series.nights if point.counts][: RULE.max_nights]
    if row.better == "equal" or len(first) < RULE.full_nights:
        return None
    logs = [signed_log(value, row.better) for value in first]
    found = reference_of(logs, row.floor, starts=1)
    return Bounds(
        reference=as_value(found.median, row.better),
        limit=as_value(found.median + found.limit, row.better),
    )


def has_trend(series: NightSeries) -> bool:
    """Return whether there is a figure of *series*: it has two nights, and its metric is known."""
    return len(series.nights) > 1 and series.name.metric in METRICS


def shown_range(series: NightSeries) -> tuple[float, float]:
    """Return the least and the largest value that the axis of *series* must have room for.

    Single nights far from all others are left out, so that they do not flatten the rest.
    """
    counted = [point.value for point in series.nights if point.counts]
    values = sorted(counted or [point.value for point in series.nights])
    tail = len(values) // 20
    low, high = values[tail], values[-1 - tail]
    room = max(2 * (high - low), _ROOM * high)
    return max(values[0], low - room), min(values[-1], high + room)


def trend_plots(every: Sequence[NightSeries]) -> Iterator[Plot]:
    """Yield a figure of each series that has one, the largest change first."""
    for series in sorted(every, key=_largest, reverse=True):
        if has_trend(series):
            yield trend_plot(series)


def _largest(series: NightSeries) -> float:
    changes = [abs(math.log1p(change.change)) for change in series.changes]
    return max(changes, default=0.0)


def trend_plot(series: NightSeries, *, judged_by: Bounds | None = None) -> Plot:
    """Return the figure of a series (:func:`has_trend`).

    :param judged_by: reference and limit of a report; None takes those that the nightly rule makes
        of the first nights.
    """
    name, bounds = series.name, judged_by or bounds_of_nights(series)
    where = f"{name.system}-{name.client_kind}"
    return Plot(
        name=f"trend-{where}-{name.topology}-{name.workload}-{name_of(name.metric)}",
        title=f"{capital(metric_title(name.metric))}: {name.topology}, {name.workload}",
        caption=" ".join(_caption(series, bounds, is_judged=judged_by is not None)),
        panels=(
            Panel(
                title=f"{name.topology}, {name.workload}, {name.system}",
                draw=_Nights(series, bounds).draw,
                size=(640, 320),
            ),
        ),
        rows=[_row(series, point, bounds) for point in series.nights],
        columns=1,
    )


def _caption(series: NightSeries, bounds: Bounds | None, *, is_judged: bool) -> Iterator[str]:
    out = sum(not point.counts for point in series.nights)
    yield f"{plural(len(series.nights), 'night')}, the median and the range of each one's runs."
    if is_judged:
        yield "Grey band: from the reference to the limit of this session's report."
    elif bounds is not None:
        yield (
            f"Grey band: from the median of the first {RULE.max_nights} nights to the limit that "
            "the nightly rule makes of them."
        )
    if series.versions:
        yield "Dotted: another version served from that night on."
    if series.changes:
        yield "Thick lines: levels before and after a dated change."
    low, high = shown_range(series)
    if any(not low <= point.value <= high for point in series.nights):
        yield "Triangles at the edge: values outside the axis."
    if out:
        yield f"×: {plural(out, 'night')} without a valid run, or excluded."


def _row(series: NightSeries, point: NightPoint, bounds: Bounds | None) -> dict[str, object]:
    name = series.name
    return {
        "night": point.night.isoformat(),
        "system": name.system,
        "topology": name.topology,
        "workload": name.workload,
        "metric": name.metric,
        "unit": METRICS[name.metric].unit,
        "value": point.value,
        "lowest": point.lowest,
        "highest": point.highest,
        "counts": point.counts,
        "reference": bounds.reference if bounds else None,
        "limit": bounds.limit if bounds else None,
        "versions": "; ".join(text for night, text in series.versions if night == point.night),
        "change": next((c.change for c in series.changes if c.first == point.night), None),
    }


@dataclass(frozen=True, slots=True)
class _Nights:
    series: NightSeries
    bounds: Bounds | None

    def draw(self, axes: Axes) -> None:
        from matplotlib.dates import AutoDateLocator
        from matplotlib.dates import ConciseDateFormatter

        style = topology_styles([self.series.name.topology])[self.series.name.topology]
        good = [point for point in self.series.nights if point.counts]
        bad = [point for point in self.series.nights if not point.counts]
        nights = [point.night for point in good]
        if self.bounds is not None:
            ends = sorted((self.bounds.reference, self.bounds.limit))
            axes.axhspan(*ends, color=GREY, alpha=0.18, linewidth=0, zorder=0)
        wide = [point for point in good if point.lowest < point.highest]
        across = [x for point in wide for x in (point.night, point.night, point.night)]
        up = [y for point in wide for y in (point.lowest, point.highest, math.nan)]
        axes.plot(across, up, color=style.color, linewidth=2, alpha=0.35, solid_capstyle="butt")
        values = [point.value for point in good]
        line: dict[str, object] = {"linewidth": 0.8}
        if len(good) <= _MAX_MARKED:
            line |= {"marker": "o", "markersize": 3.5, "markeredgecolor": "none"}
        axes.plot(nights, values, color=style.color, **line)
        if bad:
            marks = {"marker": "x", "markersize": 7, "markeredgewidth": 1.6, "linestyle": "none"}
            axes.plot([p.night for p in bad], [p.value for p in bad], color=INK, **marks)
        locator = AutoDateLocator(minticks=3, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        self._changes(axes)
        bounds = [self.bounds.reference, self.bounds.limit] if self.bounds else []
        low, high = shown_range(self.series)
        scale(axes.yaxis, [low, high, *bounds], floor=False)
        self._off_axis(axes)
        self._versions(axes)
        axes.set_ylabel(metric_label(self.series.name.metric))

    def _off_axis(self, axes: Axes) -> None:
        """Mark nights whose value is outside the axis at its edge."""
        bottom, top = axes.get_ylim()
        above = [point.night for point in self.series.nights if point.value > top]
        below = [point.night for point in self.series.nights if point.value < bottom]
        for nights, edge, mark in ((above, top, "^"), (below, bottom, "v")):
            if nights:
                marks = {"color": INK, "markersize": 7, "linestyle": "none", "clip_on": False}
                axes.plot(nights, [edge] * len(nights), marker=mark, **marks)

    def _changes(self, axes: Axes) -> None:
        nights = [point.night for point in self.series.nights]
        ordered = sorted(self.series.changes, key=lambda each: each.first)
        for place, change in enumerate(ordered):
            before = ordered[place - 1].last if place else nights[0]
            after = ordered[place + 1].since if place + 1 < len(ordered) else nights[-1]
            levels = {"color": INK, "linewidth": 2, "solid_capstyle": "butt", "zorder": 4}
            axes.plot([before, change.since], [change.before] * 2, **levels)
            axes.plot([change.last, after], [change.after] * 2, **levels)
            axes.annotate(
                percent(change.change),
                (change.last, change.after),
                xytext=(4, 7 if change.change > 0 else -14),
                textcoords="offset points",
                fontweight="bold",
                bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
                zorder=5,
            )

    def _versions(self, axes: Axes) -> None:
        first, last = self.series.nights[0].night, self.series.nights[-1].night
        shown = [each for each in self.series.versions if first <= each[0] <= last]
        for night, text in shown[-_VERSIONS:]:
            axes.axvline(night, color=GREY, linestyle=":", linewidth=1, zorder=1)
            axes.annotate(
                text,
                (night, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -4),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=10.5,
            )
