"""Write the session's report to its run folder, and to the file of ``--pdserve-report``."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.plugin.options import wants_report
from pytest_pdserve.values.errors import PdserveError

if TYPE_CHECKING:
    from pytest_pdserve.report.document import PytestOutcomes
    from pytest_pdserve.report.page.trends import NightTrends
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.values.report import Reason
    from pytest_pdserve.values.report import Report

report_key = pytest.StashKey["Report"]()
"""The session's report, after its end."""
lines_key = pytest.StashKey[list[str]]()
"""Summary lines about errors of the report's files."""
_COUNTED = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "deselected")
"""Outcomes that pytest's summary counts."""
_MAX_MESSAGE = 2000
"""Maximum characters of a test's message."""
_COMPLETE = tuple(pytest.ExitCode[name] for name in ("OK", "TESTS_FAILED", "NO_TESTS_COLLECTED"))
"""Exit codes of pytest when it ran every selected test."""


def replace_earlier_report(config: pytest.Config) -> None:
    """Write an empty report to the file of ``--pdserve-report`` at the start.

    So a killed session does not leave the report of an earlier one.

    :raises pytest.UsageError: if the file cannot be written.
    """
    if not wants_report(config):
        return
    settings = settings_of(config)
    from pytest_pdserve.report.document import unmeasured_report

    _write_requested(config, unmeasured_report(settings.system, ended=False))
    if problems := config.stash.get(lines_key, []):
        raise pytest.UsageError(problems[0])


def make_report(
    pytest_session: pytest.Session, session: Session | None, notes: Callable[[], Sequence[str]]
) -> None:
    """Build and write the session's report; errors become lines of the summary.

    There is no report if no test needed the session and no file was requested.

    :param notes: returns the notes of the summary.
    """
    config = pytest_session.config
    if session is None and not wants_report(config):
        return
    try:
        report = _report(pytest_session, session, notes())
        config.stash[report_key] = report
        if session is not None and report.session is not None:
            session.store.write_report(report)
    except PdserveError as error:
        _say(config, f"no report.json: {error}")
    except Exception as error:  # an error in a report must not change verdicts
        _say(config, f"no report.json: internal error of pdserve: {error!r}; please report it")
    if report_key in config.stash and wants_report(config):
        _write_requested(config, config.stash[report_key])


def report_lines(config: pytest.Config, *, only_requested: bool) -> list[str]:
    """Return the summary lines about the report: where it is, or why there is none.

    :param only_requested: whether to report only a requested file, and not that of the run folder.
    """
    report, lines = config.stash.get(report_key, None), config.stash.get(lines_key, [])
    if report is None or lines:
        return lines
    from pytest_pdserve.results.store import REPORT_FILE

    path = settings_of(config).report
    if path is None and report.folder and not only_requested:
        path = Path(report.folder) / REPORT_FILE
    return [f"report: {path}"] if path is not None else []


def write_headline(terminal: pytest.TerminalReporter, report: Report | None) -> None:
    """Write the session's verdict and counts, in the colour of the verdict.

    pytest decides whether there are colours: ``--color``, ``NO_COLOR``, a terminal.
    """
    if report is None:
        return
    if report.status in ("FAIL", "ERROR"):
        terminal.write_line(report.headline, red=True, bold=True)
    elif report.status == "PASS":
        terminal.write_line(report.headline, green=True)
    else:
        terminal.write_line(report.headline, yellow=True)


def _report(
    pytest_session: pytest.Session, session: Session | None, notes: Sequence[str]
) -> Report:
    from pytest_pdserve.report.document import session_report
    from pytest_pdserve.report.document import unmeasured_report

    tests = _outcomes(pytest_session, session, notes)
    if session is not None:
        return session_report(session, tests)
    return unmeasured_report(
        settings_of(pytest_session.config).system,
        ended=tests.ended,
        tests=dict(tests.counts),
        errors=tests.errors,
        not_judged=tests.skipped,
        notes=tests.notes,
    )


def _write_requested(config: pytest.Config, report: Report) -> None:
    from pytest_pdserve.report.writing import format_of
    from pytest_pdserve.report.writing import write_report

    path = settings_of(config).report
    if path is None:
        return
    try:
        form = format_of(path)
        trends = _trends(config, report) if form == "html" else None
        write_report(report, path, form, trends=trends)
    except PdserveError as error:
        _say(config, f"no report: {error}")
    except Exception as error:
        _say(config, f"no report {path}: internal error of pdserve: {error!r}; please report it")


def _trends(config: pytest.Config, report: Report) -> NightTrends | None:
    """Return what the project's history holds of the session's cells; None without a history."""
    from pytest_pdserve.study.cell_trends import night_trends

    history = settings_of(config).project.history
    try:
        return night_trends(report, history) if history is not None else None
    except PdserveError as error:
        _say(config, f"no trends in the report: {error}")
        return None


def _say(config: pytest.Config, line: str) -> None:
    config.stash.setdefault(lines_key, []).append(line)


def _outcomes(
    pytest_session: pytest.Session, session: Session | None, notes: Sequence[str]
) -> PytestOutcomes:
    """Return what pytest counted, and the tests with a message but no verdict."""
    from pytest_pdserve.report.document import PytestOutcomes

    reporter: Any = pytest_session.config.pluginmanager.getplugin("terminalreporter")
    stats = reporter.stats if reporter is not None else {}
    smoke = session.smoke if session is not None else {}
    stopped = pytest_session.shouldstop or pytest_session.shouldfail

    def without_verdict(*outcomes: str) -> Iterator[Reason]:
        for outcome in outcomes:
            for report in stats.get(outcome, ()):
                if report.nodeid not in smoke and not getattr(report, "pdserve_in_report", False):
                    yield _reason(report)

    return PytestOutcomes(
        counts={name: len(stats[name]) for name in _COUNTED if stats.get(name)},
        errors=tuple(without_verdict("error", "failed")),
        skipped=tuple(without_verdict("skipped")),
        notes=tuple(notes),
        ended=pytest_session.exitstatus in _COMPLETE and not stopped,
    )


def _reason(report: Any) -> Reason:
    """Return the test, or the file that could not be collected, and its message."""
    from pytest_pdserve.values.report import Reason

    why = report.longrepr
    if isinstance(why, tuple):  # of a skip: file, line, reason
        why = str(why[2]).removeprefix("Skipped: ")
    crash = getattr(why, "reprcrash", None)
    text = str(why if crash is None else crash.message)[:_MAX_MESSAGE]
    clean = text.encode("utf-8", "backslashreplace").decode()
    return Reason(subject=report.nodeid, why=clean)
