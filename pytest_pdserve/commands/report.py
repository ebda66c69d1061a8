"""``pdserve report``: what a stored session measured and how it was judged, in one document."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_history
from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.report.writing import FORMATS
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from pytest_pdserve.report.page.trends import NightTrends
    from pytest_pdserve.values.report import Report
    from pytest_pdserve.values.sessions import StoredRef

NAME = "report"
TEXT = "Show the report of a stored session: Markdown, HTML, JSON, or text for Prometheus"
DESCRIPTION = (
    f"{TEXT}. Exit code 0 whatever the verdicts are; pdserve judge has a code for each "
    "(docs/report.md)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="Output format (%(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="Write it to this file, whole or not at all (default: standard output)",
    )
    add_history(parser)
    add_project(parser)
    parser.add_argument(
        "runs",
        nargs="?",
        type=Path,
        metavar="RUNS",
        help="Folder of a session, or of several, of which the latest is shown (default: the "
        "project's runs folder)",
    )


def run(options: argparse.Namespace) -> int:
    """Print or write the report.

    :returns: the exit code.
    :raises ConfigError: if there is no session, or its report cannot be read.
    :raises StoreError: if the file cannot be written.
    """
    from pytest_pdserve.report.writing import report_text
    from pytest_pdserve.report.writing import write_report

    report, folder = _report(options)
    trends = _trends(options, report) if options.format == "html" else None
    if options.output is None:
        sys.stdout.write(report_text(report, options.format, folder=folder, trends=trends))
    else:
        write_report(report, options.output, options.format, folder=folder, trends=trends)
        print(f"pdserve: written {options.output}", file=sys.stderr)
    return ExitCode.OK


def _trends(options: argparse.Namespace, report: Report) -> NightTrends | None:
    """Return what the history holds of the session's cells; None without a history.

    :raises ConfigError: if ``--history`` is not a folder.
    """
    from pytest_pdserve.study.cell_trends import night_trends

    history = find_project(options).history
    if history is None or (options.history is None and not history.is_dir()):
        return None
    return night_trends(report, history)


def _report(options: argparse.Namespace) -> tuple[Report, Path]:
    """Return the report of the selected session, and the session's folder."""
    from pytest_pdserve.results.store import load_report

    runs = options.runs if options.runs is not None else find_project(options).runs
    folder, found = _session(runs)
    stored = load_report(folder)
    return (_judged_again(options, folder, found) if stored is None else stored), folder


def _session(runs: Path) -> tuple[Path, StoredRef]:
    """Return the folder of the session that *runs* is, or of the latest in it.

    :raises ConfigError: if there is none, or what may be the latest cannot be read.
    """
    from pytest_pdserve.results.history import session_folders
    from pytest_pdserve.results.history import session_of
    from pytest_pdserve.results.history import unknown_folders
    from pytest_pdserve.results.reading import is_there
    from pytest_pdserve.results.store import SESSION_FILE

    below = [] if is_there(runs / SESSION_FILE) else session_folders(runs)
    if below:
        began = below[0][1].session.began
        for folder, why in unknown_folders(runs):
            if began is None or folder.stat().st_mtime > began.timestamp():
                raise ConfigError(f"{why}; this may be the latest session: name another folder")
        return below[0]
    found = session_of(runs)
    if found is None:
        raise ConfigError(
            f"{runs} holds no session that can be read: name the folder of a session, or of several"
        )
    return runs, found


def _judged_again(options: argparse.Namespace, folder: Path, found: StoredRef) -> Report:
    """Return the report of a session that left none, by the baseline of today."""
    from pytest_pdserve.backends.systems import load_system
    from pytest_pdserve.report.document import rejudged_report
    from pytest_pdserve.report.document import unmeasured_report
    from pytest_pdserve.results.baselines import state_folder
    from pytest_pdserve.results.history import stored_session
    from pytest_pdserve.session.rejudge import rejudge

    project = find_project(options)
    system = load_system(found.system, project.baseline_folders)
    unreadable: list[str] = []
    if stored_session(folder, system=found.system, unreadable=unreadable) is None:
        why = unreadable[0] if unreadable else "the session left no record"
        return unmeasured_report(
            system, session=found.session, folder=str(folder), ended=False, notes=(why,)
        )
    judged = rejudge(
        system,
        folder.resolve().parent,
        [folder.resolve().name],
        state=state_folder(),
        rootdir=project.rootdir,
        history=project.history,
        claims=sorted(project.rootdir.glob("suites/**/claims.toml")),
    )
    return rejudged_report(judged, folder)
