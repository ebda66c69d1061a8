"""The session's report: into its run folder at its end, and to the file of ``--pdserve-report``."""

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
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.values.report import Reason
    from pytest_pdserve.values.report import Report

report_key = pytest.StashKey["Report"]()
"""The session's report, once it has come to its end."""
lines_key = pytest.StashKey[list[str]]()
"""What the summary says of the report's files."""
_COUNTED = ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "deselected")
"""What pytest's summary counts."""
_LONGEST = 2000
"""Characters of what a test says that are kept."""
_WHOLE = tuple(pytest.ExitCode[name] for name in ("OK", "TESTS_FAILED", "NO_TESTS_COLLECTED"))
"""What pytest ends with when it ran every test that was chosen."""


def replace_earlier_report(config: pytest.Config) -> None:
    """Have the file of ``--pdserve-report`` say that this session has measured nothing yet.

    A session that is killed then leaves no report of an earlier one.

    :raises pytest.UsageError: if the file cannot be written.
    """
    if not wants_report(config):
        return
    settings = settings_of(config)
    from pytest_pdserve.report.document import unmeasured_report

    _write_asked(config, unmeasured_report(settings.system, ended=False))
    if problems := config.stash.get(lines_key, []):
        raise pytest.UsageError(problems[0])


def make_report(
    pytest_session: pytest.Session, session: Session | None, notes: Callable[[], Sequence[str]]
) -> None:
    """Make the session's report and write it; what goes wrong is a line of the summary.

    Nothing is made where no test needed the session and no file was asked for.

    :param notes: returns what the summary says of the tests.
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
    except Exception as error:  # whatever is wrong with a report, verdicts stay as they are
        _say(config, f"no report.json: a fault of pdserve itself: {error!r}; please report it")
    if report_key in config.stash and wants_report(config):
        _write_asked(config, config.stash[report_key])


def report_lines(config: pytest.Config, *, asked: bool) -> list[str]:
    """Return what the summary says of the report: where it lies, or why there is none.

    :param asked: whether only a file that was asked for is told, and none of the run folder.
    """
    report, lines = config.stash.get(report_key, None), config.stash.get(lines_key, [])
    if report is None or lines:
        return lines
    from pytest_pdserve.results.store import REPORT_FILE

    path = settings_of(config).report
    if path is None and report.folder and not asked:
        path = Path(report.folder) / REPORT_FILE
    return [f"report: {path}"] if path is not None else []


def write_headline(terminal: pytest.TerminalReporter, report: Report | None) -> None:
    """Write the verdict and how many there are of each, in the colour of the verdict.

    Whether there are colours is pytest's decision: ``--color``, ``NO_COLOR``, a terminal.
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


def _write_asked(config: pytest.Config, report: Report) -> None:
    from pytest_pdserve.report.writing import format_of
    from pytest_pdserve.report.writing import write_report

    path = settings_of(config).report
    if path is None:
        return
    try:
        write_report(report, path, format_of(path))
    except PdserveError as error:
        _say(config, f"no report: {error}")
    except Exception as error:
        _say(config, f"no report {path}: a fault of pdserve itself: {error!r}; please report it")


def _say(config: pytest.Config, line: str) -> None:
    config.stash.setdefault(lines_key, []).append(line)


def _outcomes(
    pytest_session: pytest.Session, session: Session | None, notes: Sequence[str]
) -> PytestOutcomes:
    """Return what pytest counted, and which tests say something that no verdict says."""
    from pytest_pdserve.report.document import PytestOutcomes

    reporter: Any = pytest_session.config.pluginmanager.getplugin("terminalreporter")
    stats = reporter.stats if reporter is not None else {}
    smoke = session.smoke if session is not None else {}
    stopped = pytest_session.shouldstop or pytest_session.shouldfail

    def unsaid(*outcomes: str) -> Iterator[Reason]:
        for outcome in outcomes:
            for said in stats.get(outcome, ()):
                if said.nodeid not in smoke and not getattr(said, "pdserve_in_report", False):
                    yield _reason(said)

    return PytestOutcomes(
        counts={name: len(stats[name]) for name in _COUNTED if stats.get(name)},
        errors=tuple(unsaid("error", "failed")),
        skipped=tuple(unsaid("skipped")),
        notes=tuple(notes),
        ended=pytest_session.exitstatus in _WHOLE and not stopped,
    )


def _reason(said: Any) -> Reason:
    """Return the test, or the file that could not be collected, and its message."""
    from pytest_pdserve.values.report import Reason

    why = said.longrepr
    if isinstance(why, tuple):  # of a skip: file, line, reason
        why = str(why[2]).removeprefix("Skipped: ")
    crash = getattr(why, "reprcrash", None)
    text = str(why if crash is None else crash.message)[:_LONGEST]
    clean = text.encode("utf-8", "backslashreplace").decode()
    return Reason(subject=said.nodeid, why=clean)
