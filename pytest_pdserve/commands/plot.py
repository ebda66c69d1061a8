"""``pdserve plot``: figures of a session, of published values or of a history, for a paper."""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from pytest_pdserve.report.figures.cells import PlottedCell
    from pytest_pdserve.report.figures.plot import Plot
    from pytest_pdserve.report.figures.plot import Row
    from pytest_pdserve.session.project import Project

NAME = "plot"
TEXT = "Draw figures of a session, a result file, a baseline, published values or a history"
DESCRIPTION = (
    f"{TEXT}: each as SVG and PNG, with its numbers as CSV (docs/figures.md). Exit codes: 0 "
    "drawn, 4 bad input"
)
DEFAULT_OUT = "figures"
MAX_TRENDS = 12
"""Figures of a history, unless ``--max-trends`` sets another number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    _add_choices(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(DEFAULT_OUT),
        metavar="DIR",
        help="Folder for the files, made if it is missing (%(default)s)",
    )
    parser.add_argument(
        "--overlay",
        choices=("article",),
        help="Draw the article's curves behind, dashed, where loads are the same (default: none)",
    )
    add_runs(parser)
    add_project(parser)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="Session folder, folder of sessions, record, baseline or result file, file of "
        "published values, folder of a history, or name of a session or of a system with "
        "published values or a baseline",
    )


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that select parts of a source."""
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="Only this metric, e.g. mean_ttft_ms; may be given several times (default: output "
        "and request throughput, mean TTFT, ITL, TPOT and E2EL; and all other figures)",
    )
    choices = {"system": "NAME", "client": "KIND", "topology": "ID", "workload": "ID"}
    for name, of in choices.items():
        parser.add_argument(f"--{name}", metavar=of, help=f"Only this {name} (default: any)")
    parser.add_argument(
        "--max-trends",
        type=int,
        default=MAX_TRENDS,
        metavar="N",
        help="Figures of a history at most, the largest changes first (%(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the figures.

    :returns: the exit code.
    :raises ConfigError: if Matplotlib is missing, or the source cannot be read or has no figure.
    :raises StoreError: if a file cannot be written.
    """
    from pytest_pdserve.report.figures.style import check_installed

    check_installed()
    _check(options)
    project = find_project(options)
    written = 0
    for plot in _plots(options, project):
        for path in _write(plot, options.out, overlay=options.overlay is not None):
            print(f"written  {path}")
        written += 1
    if not written:
        raise ConfigError(
            f"{options.source} has no value to draw: expected one of {', '.join(_metrics(options))}"
            " of the cells that the options select"
        )
    return ExitCode.OK


def _check(options: argparse.Namespace) -> None:
    from pytest_pdserve.values.metrics import METRICS

    for name in options.metric or ():
        if name not in METRICS:
            raise ConfigError(
                f"--metric {name!r:.80} is not a metric; known are {', '.join(METRICS)}"
            )
    if options.max_trends < 1:
        raise ConfigError(f"--max-trends {options.max_trends}: expected at least 1")
    if "\0" in options.source or "\0" in str(options.out):
        raise ConfigError("SOURCE and --out: expected names without a null character")


def _metrics(options: argparse.Namespace) -> Sequence[str]:
    from pytest_pdserve.report.figures.comparison import DEFAULT_METRICS

    return tuple(options.metric) if options.metric else DEFAULT_METRICS


def _plots(options: argparse.Namespace, project: Project) -> Iterator[Plot]:
    """Yield the figures of the source."""
    from pytest_pdserve.history.files import value_paths
    from pytest_pdserve.report.figures.session import article_overlay
    from pytest_pdserve.report.figures.session import every_plot
    from pytest_pdserve.report.figures.session import metric_plots
    from pytest_pdserve.report.figures.spent import time_plots
    from pytest_pdserve.results.store import load_times

    folder = Path(options.source)
    if any(True for _ in value_paths(folder)):
        yield from _trends(options, folder)
        return
    cells, session = _cells(options, project)
    overlay = article_overlay(project.baseline_folders) if options.overlay else None
    if options.metric:
        yield from metric_plots(cells, options.metric, overlay=overlay)
        return
    yield from every_plot(cells, overlay=overlay)
    if session is not None:
        yield from time_plots(load_times(session))


def _cells(
    options: argparse.Namespace, project: Project
) -> tuple[Sequence[PlottedCell], Path | None]:
    """Return the cells of the source, and its folder if it is a session's."""
    from pytest_pdserve.report.figures.cells import cells_of
    from pytest_pdserve.report.figures.session import cells_of_session
    from pytest_pdserve.results.history import session_of
    from pytest_pdserve.session.measured_sources import SideOptions
    from pytest_pdserve.session.measured_sources import find_measurements

    folders = (Path(options.source), project.runs / options.source)
    session = next((f for f in folders if f.is_dir() and session_of(f) is not None), None)
    if session is not None:
        _check_session(options, session)
        found = cells_of_session(session)
    else:
        given = SideOptions(system=options.system, client=options.client)
        measured = find_measurements(options.source, project, given)
        found = cells_of(measured.runs)
    kept = [
        cell
        for cell in found
        if options.topology in (None, cell.topology)
        and options.workload in (None, cell.workload_id)
    ]
    return kept, session


def _check_session(options: argparse.Namespace, folder: Path) -> None:
    """Check that the options that select a system or a client fit the session in *folder*.

    :raises ConfigError: if ``--system`` names another system, or ``--client`` is given.
    """
    from pytest_pdserve.results.history import session_of

    ref = session_of(folder)
    if ref is not None and options.system not in (None, ref.system):
        raise ConfigError(f"{folder} is a session of system {ref.system!r}, not {options.system!r}")
    if options.client is not None:
        raise ConfigError(
            f"--client {options.client}: {folder} is a session, which has one client; leave it out"
        )


def _trends(options: argparse.Namespace, folder: Path) -> Iterator[Plot]:
    """Yield a figure of each metric of each cell of a history."""
    from pytest_pdserve.history.store import Store
    from pytest_pdserve.report.figures.trend import trend_plots
    from pytest_pdserve.study.cell_trends import dated_series

    store = Store.open(folder)
    values = store.values(options.system, options.topology, options.workload)
    values = values[values["metric"].isin(_metrics(options))]
    if options.client is not None:
        values = values[values["client_kind"] == options.client]
    if values.empty:
        return
    series, why = dated_series(values, store.sessions())
    if why:
        print(f"pdserve: {why}", file=sys.stderr)
    yield from islice(trend_plots(series), options.max_trends)
    if len(series) > options.max_trends:
        print(
            f"pdserve: {options.max_trends} of {len(series)} series are drawn, the largest changes "
            "first; choose with --topology, --workload and --metric, or raise --max-trends",
            file=sys.stderr,
        )


def _write(plot: Plot, folder: Path, *, overlay: bool) -> Iterator[Path]:
    """Write a figure as SVG and PNG, and its numbers as CSV; yield the paths."""
    from pytest_pdserve.report.figures.drawing import paper_png
    from pytest_pdserve.report.figures.drawing import paper_svg
    from pytest_pdserve.results.files import write_bytes

    contents = {
        "svg": paper_svg(plot, overlay=overlay).encode(),
        "png": paper_png(plot, overlay=overlay),
        "csv": csv_text(plot.rows).encode(),
    }
    for ending, content in contents.items():
        path = folder / f"{file_name(plot.name)}.{ending}"
        write_bytes(path, content, otherwise="name another folder with --out")
        yield path


def file_name(name: str) -> str:
    """Return a name that every file system takes: a workload's id may have any character."""
    from pytest_pdserve.results.store import cut_name

    return re.sub(r"[^A-Za-z0-9.+=~_-]", "_", cut_name(name))


def csv_text(rows: Iterable[Row]) -> str:
    """Return *rows* as CSV, a line each below their columns; None is empty."""
    listed = list(rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(listed[0]) if listed else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return out.getvalue()
