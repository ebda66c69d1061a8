"""Verdicts on cells, topologies and claims, with the numbers behind them."""

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
    """No latency or throughput of the cell had a reference: its runs become the reference."""
    SUSPICIOUS = "SUSPICIOUS"
    """A metric is worse in every run, but not yet confirmed."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """A claim is violated, but by no more than noise explains, or not yet confirmed."""
    REPORTED = "REPORTED"
    """A claim does not hold, and is not enforced on this system."""
    EXPECTED = "EXPECTED"
    """Worse, or a claim that does not hold, and covered by an entry of expected.toml."""
    FAIL = "FAIL"
    """Worse."""
    NOT_JUDGED = "NOT JUDGED"
    """It was selected, but a reference or a measured value is missing."""
    NOT_ASKED = "NOT ASKED"
    """A topology of the claim was not run."""
    ERROR = "ERROR"
    """Machines, servers or the client failed, or the run is invalid."""


UNSETTLED = frozenset({Status.NEW, Status.SUSPICIOUS, Status.INCONCLUSIVE})
"""Verdicts that pass, but fail under ``--pdserve-strict``."""
WORSE = (Status.FAIL, Status.SUSPICIOUS, Status.EXPECTED)
"""Verdicts on a metric that is worse, in the order in which they are reported."""
JUDGED = UNSETTLED | {Status.PASS, Status.REPORTED, Status.EXPECTED, Status.FAIL}
"""Verdicts of something that was judged, or measured as a first reference."""


def exit_code_of(status: Status, *, strict: bool) -> ExitCode:
    """Return the exit code of a command for one verdict."""
    if status is Status.ERROR:
        return ExitCode.ERROR
    if status is Status.FAIL:
        return ExitCode.FAIL
    if status is Status.NOT_JUDGED or (strict and status in UNSETTLED):
        return ExitCode.NOT_JUDGED
    return ExitCode.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one cell or claim, with what supports it."""

    status: Status
    subject: str
    """The cell, topology or claim."""
    misses: tuple[str, ...] = ()
    """A sentence for each miss, with value and limit."""
    evidence: tuple[tuple[str, str], ...] = ()
    """Label and text of each line below the message: baseline, record, log, how to accept."""

    metrics: tuple[MetricVerdict, ...] = ()
    """The verdict on each metric, the largest change first."""
    faults: tuple[str, ...] = ()
    """The misses that belong to no metric's limit: counts that changed, missing values."""

    @property
    def worse(self) -> tuple[MetricVerdict, ...]:
        """The verdicts on metrics that are worse: FAIL first, then the largest change."""
        worse = (metric for metric in self.metrics if metric.status in WORSE)
        return tuple(sorted(worse, key=lambda metric: WORSE.index(metric.status)))

    @property
    def severity(self) -> float:
        """Largest change, in units of its limit; 0 without metrics."""
        return max((metric.severity for metric in self.metrics), default=0.0)

    def with_evidence(self, *evidence: tuple[str, str]) -> Verdict:
        """Return the verdict with more evidence."""
        return replace(self, evidence=(*self.evidence, *evidence))

    @property
    def reason(self) -> str:
        """The status and the first miss in one line, for a skip or an xfail."""
        why = self.misses[0] if self.misses else self.subject
        return f"{self.status}: {why}"

    @property
    def message(self) -> str:
        """All misses and the evidence, one per line, ready to print."""
        lines = [
            f"{miss} [{self.subject}]" if miss.endswith(".") else f"{miss}: {self.subject}"
            for miss in self.misses
        ] or [f"{self.status}: {self.subject}"]
        width = max((len(label) for label, _ in self.evidence), default=0)
        lines += [f"  {label:<{width}}  {text}" for label, text in self.evidence]
        return "\n".join(lines)
