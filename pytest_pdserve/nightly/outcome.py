"""Exit codes of a night, from its session and its report. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import exit_code_of
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.report import Report

_OF_PYTEST = {
    0: ExitCode.OK,
    1: ExitCode.FAIL,
    2: ExitCode.INTERRUPTED,
    3: ExitCode.FAULT_OF_PDSERVE,
    4: ExitCode.BAD_INPUT,
    5: ExitCode.NOT_JUDGED,
}


def code_of_session(code: int) -> ExitCode:
    """Return the exit code for that of pytest; a signal is an ERROR."""
    return _OF_PYTEST.get(code, ExitCode.ERROR)


def codes_of_report(report: Report, *, partial: bool) -> Iterator[ExitCode]:
    """Yield the exit codes for a report; a night without measurements is never OK.

    :param partial: whether cells may be left out for a deadline.
    """
    for verdict in report.verdicts:
        if verdict.status == "MEASURED":  # without a verdict
            yield ExitCode.NOT_JUDGED
        else:
            yield exit_code_of(Status(verdict.status), strict=False)
    if report.errors or not report.ended:
        yield ExitCode.ERROR
    if not report.measured or (report.left_out and not partial):
        yield ExitCode.NOT_JUDGED
