"""Trends of a page: the cells that are shown over the nights of a history, and their figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from datetime import date
from pathlib import Path

from pytest_pdserve.report.figures.cells import bounds_of
from pytest_pdserve.report.figures.figure import Figure
from pytest_pdserve.report.figures.style import is_installed
from pytest_pdserve.report.figures.trend import NightSeries
from pytest_pdserve.report.figures.trend import has_trend
from pytest_pdserve.report.figures.trend import trend_plot
from pytest_pdserve.report.page.groups import gains_of
from pytest_pdserve.report.page.groups import worst_metric
from pytest_pdserve.values.report import Report

MAX_TRENDS = 12
"""Trends of a page at most; each has 25 kB for 90 nights, 22 kB for 365, which have no marks."""
_MAX_BYTES = 500_000
"""Size that all trends of a page may have together."""
_SIZE = (440, 280)
"""Width and height of a trend, CSS pixels: its text stays readable on a phone."""
_WORSE = ("FAIL", "ERROR", "SUSPICIOUS", "INCONCLUSIVE")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMetric:
    """One metric of one cell."""

    topology: str
    """Topology id."""
    workload: str
    """Workload id."""
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NightTrends:
    """Nights in a history of the metrics whose trend a page shows."""

    history: Path
    """Folder of the history."""
    series: tuple[NightSeries, ...]
    """Nights of each metric."""
    newest: date | None
    """Newest night of the system in the history; None if it has none."""
    has_session: bool
    """True if the session of the page is in the history."""
    notes: tuple[str, ...] = ()
    """What is missing in it, and why, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendFigure:
    """The trend of one metric of one cell."""

    of: CellMetric
    """Metric and cell."""
    figure: Figure
    """Its figure."""


def trend_metrics(report: Report) -> tuple[CellMetric, ...]:
    """Return the metrics whose trend a page shows, :data:`MAX_TRENDS` at most.

    They are the worst metric of each cell that failed or is suspicious, the worst cell first, then
    the largest gain of each cell that is better.
    """
    found: dict[tuple[str, str], CellMetric] = {}
    for key, metric in _candidates(report):
        if len(found) == MAX_TRENDS:
            break
        topology, workload = key
        found.setdefault(key, CellMetric(topology=topology, workload=workload, metric=metric))
    return tuple(found.values())


def _candidates(report: Report) -> Iterator[tuple[tuple[str, str], str]]:
    for verdict in report.verdicts:
        if verdict.kind == "cell" and verdict.workload and verdict.status in _WORSE:
            metric = worst_metric(verdict.metrics, verdict.status)
            if metric is not None:
                yield (verdict.topologies[0], verdict.workload), metric.metric
    for gain in gains_of(report):
        if gain.of.kind == "cell" and gain.of.workload:
            yield (gain.of.topologies[0], gain.of.workload), gain.metric.metric


def trend_figures(trends: NightTrends, report: Report) -> list[TrendFigure]:
    """Return the figures of *trends*, in the order of :func:`trend_metrics`.

    Empty without Matplotlib. Figures that would make the page too large are left out.
    """
    if not is_installed():
        return []
    from pytest_pdserve.report.figures.drawing import page_figure

    there = {
        CellMetric(topology=s.name.topology, workload=s.name.workload, metric=s.name.metric): s
        for s in trends.series
        if has_trend(s)
    }
    bounds = bounds_of(report)
    drawn: list[TrendFigure] = []
    room = _MAX_BYTES
    for number, of in enumerate(trend_metrics(report), 1):
        if (series := there.get(of)) is None:
            continue
        judged_by = bounds.get((of.topology, of.workload), {}).get(of.metric)
        plot = trend_plot(series, judged_by=judged_by)
        panels = tuple(replace(panel, size=_SIZE) for panel in plot.panels)
        plot = replace(plot, name=f"trend-{number}", panels=panels)
        figure = page_figure(plot)
        room -= len(figure.svg.encode())
        if room < 0:
            break
        drawn.append(TrendFigure(of=of, figure=figure))
    return drawn
