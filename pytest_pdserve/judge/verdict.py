"""Verdicts: what judging says, with the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from pytest_pdserve.judge.cells import MetricVerdict


class Status(StrEnum):
    """The verdicts on a cell, a topology or a claim; docs/judging.md has the table."""

    PASS = "PASS"  # noqa: S105 - an outcome, no password
    """Judged, and not worse."""
    NEW = "NEW"
    """No latency or throughput of the cell had a reference: its runs become it."""
    SUSPICIOUS = "SUSPICIOUS"
    """A metric is worse in every run, and that is not settled."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """A claim is violated, by no more than its noise explains, or not confirmed."""
    REPORTED = "REPORTED"
    """A claim does not hold, and is not enforced on this system."""
    EXPECTED = "EXPECTED"
    """Worse, or a claim that does not hold, as an entry of expected.toml says."""
    FAIL = "FAIL"
    """Worse."""
    NOT_JUDGED = "NOT JUDGED"
    """It was asked for, but a reference or a measured value is missing."""
    NOT_ASKED = "NOT ASKED"
    """A topology of the claim was not run."""
    ERROR = "ERROR"
    """Machines, servers or the client failed, or the run is invalid."""


UNSETTLED = frozenset({Status.NEW, Status.SUSPICIOUS, Status.INCONCLUSIVE})
"""These pass, but fail under ``--pdserve-strict``."""
WORSE = (Status.FAIL, Status.SUSPICIOUS, Status.EXPECTED)
"""Verdicts on a metric that is worse, in the order in which they are told."""
JUDGED = UNSETTLED | {Status.PASS, Status.REPORTED, Status.EXPECTED, Status.FAIL}
"""Verdicts that mean that something was judged, or measured as a first reference."""


def exit_code_of(status: Status, *, strict: bool) -> ExitCode:
    """Return the exit code that a command needs for one verdict."""
    if status is Status.ERROR:
        return ExitCode.ERROR
    if status is Status.FAIL:
        return ExitCode.FAIL
    if status is Status.NOT_JUDGED or (strict and status in UNSETTLED):
        return ExitCode.NOT_JUDGED
    return ExitCode.OK


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

    metrics: tuple[MetricVerdict, ...] = ()
    """What is said of each metric, the largest change first."""
    faults: tuple[str, ...] = ()
    """The misses that are of no metric: counts that changed, values that are missing."""

    @property
    def worse(self) -> tuple[MetricVerdict, ...]:
        """What is said of each metric that is not a PASS: FAIL first, then the largest change."""
        worse = (metric for metric in self.metrics if metric.status in WORSE)
        return tuple(sorted(worse, key=lambda metric: WORSE.index(metric.status)))

    @property
    def severity(self) -> float:
        """Largest change, in limits; 0 without metrics."""
        return max((metric.severity for metric in self.metrics), default=0.0)

    def beside(self, *evidence: tuple[str, str]) -> Verdict:
        """The same with more evidence."""
        return replace(self, evidence=(*self.evidence, *evidence))

    @property
    def reason(self) -> str:
        """The status and the first miss in one line, as a skip or an xfail gives it."""
        why = self.misses[0] if self.misses else self.subject
        return f"{self.status}: {why}"

    @property
    def message(self) -> str:
        """All misses and where the evidence lies, ready to print."""
        lines = [
            f"{miss} [{self.subject}]" if miss.endswith(".") else f"{miss}: {self.subject}"
            for miss in self.misses
        ] or [f"{self.status}: {self.subject}"]
        width = max((len(label) for label, _ in self.evidence), default=0)
        lines += [f"  {label:<{width}}  {text}" for label, text in self.evidence]
        return "\n".join(lines)
