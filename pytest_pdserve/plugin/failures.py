"""Show only the message of a verdict in FAILURES and other reports."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.values.errors import BaselineRegression


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRepr:
    """Representation of a verdict in reports, without the test's source and arguments."""

    name: str
    """Name of the exception."""
    message: str
    """Misses of the verdict, a line each."""
    reprcrash: Any
    """Where the test ended, in pytest's type, with :attr:`message`."""

    def toterminal(self, tw: Any) -> None:
        """Write it as pytest writes exceptions."""
        for line in self._lines():
            tw.line(line, red=True, bold=True)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        return [f"E   {line}" for line in f"{self.name}: {self.message}".splitlines()]


def show_verdict_alone(report: pytest.TestReport, error: BaselineRegression) -> None:
    """Remove the test's source and arguments from its report: they do not explain a verdict."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        report.longrepr = VerdictRepr(  # type: ignore[assignment]
            name=type(error).__name__,
            message=str(error),
            reprcrash=replace(crash, message=str(error)),
        )


def show_message_alone(report: pytest.TestReport, message: str) -> None:
    """Remove the exception's name from the summary line of a report."""
    shown = report.longrepr
    crash = getattr(shown, "reprcrash", None)
    if crash is not None:
        shown.reprcrash = replace(crash, message=message)  # type: ignore[union-attr]
