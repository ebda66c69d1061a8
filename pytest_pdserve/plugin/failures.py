"""What FAILURES and other reports show of a verdict: its message alone."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.values.errors import BaselineRegression


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRepr:
    """A verdict as pytest shows an exception, without the test's source and its arguments."""

    name: str
    """Of the exception."""
    message: str
    """What is worse, a line each."""
    reprcrash: Any
    """Where the test ended, as pytest has it, with :attr:`message`."""

    def toterminal(self, tw: Any) -> None:
        """Write it as pytest writes the lines of an exception."""
        for line in self._lines():
            tw.line(line, red=True, bold=True)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        return [f"E   {line}" for line in f"{self.name}: {self.message}".splitlines()]


def show_verdict_alone(report: pytest.TestReport, error: BaselineRegression) -> None:
    """Take source and arguments of the test out of its report: they say nothing of a verdict."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        report.longrepr = VerdictRepr(  # type: ignore[assignment]
            name=type(error).__name__,
            message=str(error),
            reprcrash=replace(crash, message=str(error)),
        )


def show_message_alone(report: pytest.TestReport, message: str) -> None:
    """Take the exception's name out of the line that sums up a report."""
    shown = report.longrepr
    crash = getattr(shown, "reprcrash", None)
    if crash is not None:
        shown.reprcrash = replace(crash, message=message)  # type: ignore[union-attr]
