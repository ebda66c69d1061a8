"""One metric of one cell over the nights of a history."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

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
from pytest_pdserve.report.figures.style import looks
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.trend import CellChange
from pytest_pdserve.values.trend import SeriesName
from pytest_pdserve.values.trend import Trend

if TYPE_CHECKING:
    import pandas as pd

JUDGED = ("valid", "unproven")
"""Status of values that count, as for verdicts."""
_KEYS = ["system", "client_kind", "topology", "workload", "metric"]
_VERSIONS = 6
"""Changes of versions that are labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPoint:
    """What one night of a cell showed."""

    night: date
    value: float
    """Median of its runs."""
    lowest: float
    highest: float
    counts: bool
    """Whether it is evidence: false of an invalid or excluded one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSeries:
    """One metric of one cell, night by night."""

    name: SeriesName
    nights: tuple[NightPoint, ...]
    """Oldest first."""
    versions: tuple[tuple[date, str], ...]
    """Night and name of each change of what served."""
    changes: tuple[CellChange, ...]
    """Steps and drifts."""


def series_of(
    values: pd.DataFrame, sessions: pd.DataFrame, trend: Trend | None
) -> Iterator[NightSeries]:
    """Yield the nights of each metric of each cell.

    :param values: a row for each value of each run (:meth:`.history.store.Store.values`).
    :param sessions: a row for each session (:meth:`.history.store.Store.sessions`).
    :param trend: changes that were found; None where nothing looked for them.
    """
    kept = values[values["night"].notna() & (values["value"] > 0) & (values["value"] < math.inf)]
    versions: dict[str, tuple[tuple[date, str], ...]] = {}
    for key, rows in kept.groupby(_KEYS, sort=True):
        assert isinstance(key, tuple)
        name = SeriesName(**dict(zip(_KEYS, map(str, key), strict=True)))
        if name.system not in versions:
            versions[name.system] = tuple(_version_changes(sessions, name.system))
        yield NightSeries(
            name=name,
            nights=tuple(_nights(rows)),
            versions=versions[name.system],
            changes=tuple(_changes_of(trend, name)),
        )


def _nights(rows: pd.DataFrame) -> Iterator[NightPoint]:
    counts = rows["status"].isin(JUDGED) & ~rows["excluded"].astype(bool)
    marked = rows.assign(counts=counts, day=rows["night"].dt.date)
    for day, of_night in marked.groupby("day", sort=True):
        good = of_night[of_night["counts"]]
        found = [float(value) for value in (good if len(good) else of_night)["value"]]
        assert isinstance(day, date)
        yield NightPoint(
            night=day,
            value=statistics.median(found),
            lowest=min(found),
            highest=max(found),
            counts=bool(len(good)),
        )


def _version_changes(sessions: pd.DataFrame, system: str) -> Iterator[tuple[date, str]]:
    before: Mapping[str, str] | None = None
    rows = sessions[(sessions["system"] == system) & sessions["night"].notna()]
    for night, text in zip(rows["night"], rows["versions"], strict=True):
        now: Mapping[str, str] = json.loads(text)
        if before is not None:
            said = [
                f"{name} {version}"
                for name, version in now.items()
                if name in before and before[name] != version and name != "commit"
            ]
            if said:
                yield night.date(), ", ".join(said)
        before = now


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


def trend_plots(every: Sequence[NightSeries]) -> Iterator[Plot]:
    """Yield a figure of each series that has two nights or more, the largest change first."""
    for series in sorted(every, key=_largest, reverse=True):
        if len(series.nights) > 1 and series.name.metric in METRICS:
            yield _plot(series)


def _largest(series: NightSeries) -> float:
    changes = [abs(math.log1p(change.change)) for change in series.changes]
    return max(changes, default=0.0)


def _plot(series: NightSeries) -> Plot:
    name, bounds = series.name, bounds_of_nights(series)
    out = sum(not point.counts for point in series.nights)
    said = [f"{plural(len(series.nights), 'night')}, the median and the range of each one's runs."]
    if bounds is not None:
        said.append(
            f"Grey band: from the median of the first {RULE.max_nights} nights to the limit that "
            "the nightly rule makes of them."
        )
    if series.versions:
        said.append("Dotted: another version served from that night on.")
    if series.changes:
        said.append("Thick lines: levels before and after a dated change.")
    if out:
        said.append(f"×: {plural(out, 'night')} without a valid run, or excluded.")
    where = f"{name.system}-{name.client_kind}"
    return Plot(
        name=f"trend-{where}-{name.topology}-{name.workload}-{name_of(name.metric)}",
        title=f"{capital(metric_title(name.metric))}: {name.topology}, {name.workload}",
        caption=" ".join(said),
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
        "versions": "; ".join(said for night, said in series.versions if night == point.night),
        "change": next((c.change for c in series.changes if c.first == point.night), None),
    }


@dataclass(frozen=True, slots=True)
class _Nights:
    series: NightSeries
    bounds: Bounds | None

    def draw(self, axes: Axes) -> None:
        from matplotlib.dates import AutoDateLocator
        from matplotlib.dates import ConciseDateFormatter

        look = looks([self.series.name.topology])[self.series.name.topology]
        good = [point for point in self.series.nights if point.counts]
        bad = [point for point in self.series.nights if not point.counts]
        nights = [point.night for point in good]
        if self.bounds is not None:
            ends = sorted((self.bounds.reference, self.bounds.limit))
            axes.axhspan(*ends, color=GREY, alpha=0.18, linewidth=0, zorder=0)
        across = [x for point in good for x in (point.night, point.night, point.night)]
        up = [y for point in good for y in (point.lowest, point.highest, math.nan)]
        axes.plot(across, up, color=look.color, linewidth=2, alpha=0.35, solid_capstyle="butt")
        values = [point.value for point in good]
        style = {"marker": "o", "markersize": 3.5, "markeredgecolor": "none", "linewidth": 0.8}
        axes.plot(nights, values, color=look.color, **style)
        if bad:
            marks = {"marker": "x", "markersize": 7, "markeredgewidth": 1.6, "linestyle": "none"}
            axes.plot([p.night for p in bad], [p.value for p in bad], color=INK, **marks)
        locator = AutoDateLocator(minticks=3, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        self._changes(axes)
        known = [self.bounds.reference, self.bounds.limit] if self.bounds else []
        ranges = [end for point in self.series.nights for end in (point.lowest, point.highest)]
        scale(axes.yaxis, [*ranges, *known], floor=False)
        self._versions(axes)
        axes.set_ylabel(metric_label(self.series.name.metric))

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
                zorder=5,
            )

    def _versions(self, axes: Axes) -> None:
        first, last = self.series.nights[0].night, self.series.nights[-1].night
        shown = [each for each in self.series.versions if first <= each[0] <= last]
        for night, said in shown[-_VERSIONS:]:
            axes.axvline(night, color=GREY, linestyle=":", linewidth=1, zorder=1)
            axes.annotate(
                said,
                (night, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -4),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=10.5,
            )
