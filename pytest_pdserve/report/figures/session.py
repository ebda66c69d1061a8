"""All figures of one source: those of measurements, and those of a session's time."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.report.figures.cells import Key
from pytest_pdserve.report.figures.cells import PlottedCell
from pytest_pdserve.report.figures.cells import bounds_of
from pytest_pdserve.report.figures.cells import cells_of
from pytest_pdserve.report.figures.comparison import DEFAULT_METRICS
from pytest_pdserve.report.figures.comparison import sweep_plots
from pytest_pdserve.report.figures.distributions import distribution_plots
from pytest_pdserve.report.figures.loads import load_plots
from pytest_pdserve.report.figures.pareto import pareto_plots
from pytest_pdserve.report.figures.plot import Overlay
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.spent import time_plots
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.history import record_paths
from pytest_pdserve.results.measured import runs_of_records
from pytest_pdserve.results.store import load_own_record
from pytest_pdserve.results.store import load_report
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Report

ARTICLE = "article"
"""The system whose figures are the overlay."""
MAX_CELLS = 400
"""Cells that a page's figures show, those of the worst verdicts first."""
MAX_PANELS = 4
"""Panels of a page's figure."""


def article_overlay(folders: Sequence[Path] = SHIPPED) -> Overlay:
    """Return the article's curves.

    :raises ConfigError: if they cannot be read.
    """
    system = load_system(ARTICLE, folders)
    figures = load_figures(figures_path(system))
    cells = {
        key: {name: reading.value for name, reading in readings.items()}
        for key, readings in figures.cells.items()
    }
    return Overlay(title=f"the article of {figures.date}", cells=cells)


def every_plot(
    cells: Sequence[PlottedCell],
    *,
    overlay: Overlay | None = None,
    max_panels: int | None = None,
) -> Iterator[Plot]:
    """Yield all figures of *cells*: metrics, latency against throughput, distributions.

    :param overlay: curves that are drawn behind.
    :param max_panels: panels of a figure at most; None for all.
    """
    yield from metric_plots(cells, DEFAULT_METRICS, overlay=overlay, max_panels=max_panels)
    yield from pareto_plots(cells, max_panels=max_panels)
    yield from distribution_plots(cells, max_panels=max_panels)


def metric_plots(
    cells: Sequence[PlottedCell],
    metrics: Sequence[str],
    *,
    overlay: Overlay | None = None,
    max_panels: int | None = None,
) -> Iterator[Plot]:
    """Yield the figures of *metrics*, of those that cells have: over lengths, and by load."""
    by_load = None if max_panels is None else 1
    yield from sweep_plots(cells, metrics, overlay or Overlay(), max_panels=max_panels)
    yield from load_plots(cells, metrics, max_panels=by_load)


def page_plots(report: Report, folder: Path | None) -> Iterator[Plot]:
    """Yield the figures of a session's page.

    :param folder: folder of its records; None takes the report's own.
    """
    there = folder or (Path(report.folder) if report.folder else None)
    overlay = Overlay() if report.figures else article_overlay()
    cells = _figure_cells(report) if report.figures else _page_cells(report, there)
    yield from every_plot(cells, overlay=overlay, max_panels=MAX_PANELS)
    yield from time_plots(report.phases)


def _figure_cells(report: Report) -> tuple[PlottedCell, ...]:
    """Return the cells of a system that is figures."""
    from pytest_pdserve.results.measured import runs_of_figures
    from pytest_pdserve.serving.provenance import measured_on

    try:
        system = load_system(report.system, SHIPPED)
    except ConfigError:  # a project's own system, whose folder a report does not name
        return ()
    figures = load_figures(figures_path(system))
    return cells_of(runs_of_figures(figures, system.name, measured_on({}, system)))


def _page_cells(report: Report, folder: Path | None) -> tuple[PlottedCell, ...]:
    """Return the cells of a session, of the worst verdicts first, as far as a page shows them."""
    if folder is None:
        return ()
    verdicts = [each for each in report.verdicts if each.kind == "cell" and each.records]
    paths = [folder / path for each in verdicts[:MAX_CELLS] for path in each.records]
    return cells_of_records(dict(_read(paths)), report)


def cells_of_session(folder: Path) -> tuple[PlottedCell, ...]:
    """Return the cells of a session's folder, with the limits of its report if it has one.

    :raises ConfigError: if a record or the report cannot be read.
    """
    records = {path: load_own_record(path) for path in record_paths(folder)}
    return cells_of_records(records, load_report(folder))


def _read(paths: Sequence[Path]) -> Iterator[tuple[Path, Record]]:
    for path in paths:
        try:
            yield path, load_own_record(path)
        except ConfigError:  # the page says which records cannot be read
            continue


def cells_of_records(
    records: Mapping[Path, Record], report: Report | None
) -> tuple[PlottedCell, ...]:
    """Return the cells of *records*, with limits of their report, in the records' order.

    :param records: record by its file.
    """
    requests: dict[Key, list[Path]] = {}
    for path, record in records.items():
        if record.requests is not None:
            key = record.topology, record.workload.id
            requests.setdefault(key, []).append(path.with_name(record.requests))
    order = {(r.topology, r.workload.id): None for r in records.values()}
    bounds = bounds_of(report) if report is not None else {}
    found = cells_of(runs_of_records(records.values(), ""), bounds=bounds, requests=requests)
    by_key = {cell.key: cell for cell in found}
    return tuple(by_key[key] for key in order)
