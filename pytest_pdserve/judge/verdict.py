"""Verdicts: what judging says, with the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from enum import StrEnum
from pathlib import Path


class Status(StrEnum):
    """Outcome of judging. Trouble with machines is none of these."""

    PASS = "PASS"  # noqa: S105 - an outcome, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    RECORDED = "RECORDED"
    """Nothing to judge by yet on this host: the run became the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of one cell or claim."""

    status: Status
    """Outcome."""
    subject: str
    """Cell or claim."""
    misses: tuple[str, ...] = ()
    """Each miss with value and limit."""
    evidence: tuple[tuple[str, str], ...] = ()
    """Label and text: baseline, record, log, how to accept."""

    recorded: Path | None = None
    """File that the runs were recorded in as a reference, where there was none to judge by."""

    def beside(self, *evidence: tuple[str, str]) -> Verdict:
        """The same with more evidence."""
        return replace(self, evidence=(*self.evidence, *evidence))

    @property
    def message(self) -> str:
        """All misses and where the evidence lies, ready to print."""
        lines = [f"{miss}: {self.subject}" for miss in self.misses] or [
            f"{self.status}: {self.subject}"
        ]
        width = max((len(label) for label, _ in self.evidence), default=0)
        lines += [f"  {label:<{width}}  {text}" for label, text in self.evidence]
        return "\n".join(lines)
