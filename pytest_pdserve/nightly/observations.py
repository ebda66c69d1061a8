"""Observations of one night: everything in its report that can be a regression. Pure."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Literal

from pytest_pdserve.judge.wording import percent
from pytest_pdserve.values.nightly import Group
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport

Seen = Literal["worse", "suspicious", "expected", "fine", "unmeasured"]
"""Result of the night: FAIL; SUSPICIOUS or INCONCLUSIVE; EXPECTED; other verdicts; not judged."""
WORST_FIRST: tuple[Seen, ...] = ("worse", "suspicious", "expected", "fine", "unmeasured")
Expected = Callable[[VerdictReport], Sequence[str]]
"""Returns the sentences on entries of expected.toml that are about a verdict."""
_SEEN: dict[str, Seen] = {
    "FAIL": "worse",
    "SUSPICIOUS": "suspicious",
    "INCONCLUSIVE": "suspicious",
    "EXPECTED": "expected",
    "REPORTED": "fine",
    "PASS": "fine",
}
_WORDS: dict[Group, str] = {
    "speed": "is slower",
    "counts": "has wrong counts or lacks values",
    "claim": "does not hold",
    "answers": "answers wrongly",
}
_WITH_SENTENCE = ("FAIL", "SUSPICIOUS", "EXPECTED")
"""Statuses of a metric with a sentence among the misses of its verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One possible regression in one night."""

    key: str
    """Identifies it on every night."""
    title: str
    """One line."""
    topology: str
    """Topology id; several, with commas, of a claim."""
    group: Group
    """Kind of regression."""
    seen: Seen
    whole: bool = False
    """True if it is about a topology as a whole."""
    cells: tuple[str, ...] = ()
    """Topology and workload of each cell."""
    metrics: tuple[str, ...] = ()
    """Metrics that are worse."""
    evidence: tuple[str, ...] = ()
    """Evidence, a sentence each."""
    confirmed: str = ""
    """How it was confirmed, in one sentence; empty if it was not."""
    records: tuple[str, ...] = ()
    """Paths of the records."""
    expected: tuple[str, ...] = ()
    """Entries of expected.toml about it."""

    def joined(self, other: Observation) -> Observation:
        """Return this observation of a topology merged with that of one of its cells."""
        return replace(
            self,
            seen=min(self.seen, other.seen, key=WORST_FIRST.index),
            cells=_unique(self.cells, other.cells),
            metrics=_unique(self.metrics, other.metrics),
            evidence=_unique(self.evidence, other.evidence),
            confirmed=self.confirmed or other.confirmed,
            records=_unique(self.records, other.records),
            expected=_unique(self.expected, other.expected),
        )


def _unique(*texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for each in texts for text in each))


def observations(report: Report, expected: Expected) -> dict[str, Observation]:
    """Return the observations of each cell, topology, claim and smoke test, by key."""
    found = [
        each for verdict in report.verdicts for each in _observations_of(verdict, report, expected)
    ]
    return {each.key: each for each in found}


def troubles(report: Report) -> tuple[str, ...]:
    """Return failures of machines, servers and the network, a sentence each.

    They include tests that fail without a verdict, and a night without measurements.
    """
    sentences = [f"{each.title}: {each.misses[0]}" for each in _errors(report) if each.misses]
    sentences += [f"{each.title} ended in an ERROR" for each in _errors(report) if not each.misses]
    sentences += [f"{each.subject}: {each.why}" for each in report.errors]
    if not report.measured and not report.figures:
        sentences.append(report.headline or "Nothing was measured")
    return tuple(dict.fromkeys(sentences))


def _errors(report: Report) -> Iterator[VerdictReport]:
    return (verdict for verdict in report.verdicts if verdict.status == "ERROR")


def _observations_of(
    verdict: VerdictReport, report: Report, expected: Expected
) -> Iterator[Observation]:
    """Yield the observations of a verdict."""
    if verdict.kind in ("cell", "topology"):
        yield _observation(verdict, report, "speed", _seen_of_speed(verdict), expected)
        if verdict.kind == "cell":
            yield _observation(verdict, report, "counts", _seen_of_counts(verdict), expected)
    else:
        group: Group = "claim" if verdict.kind == "claim" else "answers"
        yield _observation(
            verdict, report, group, _SEEN.get(verdict.status, "unmeasured"), expected
        )


def _seen_of_speed(verdict: VerdictReport) -> Seen:
    outcomes = [_SEEN[each.status] for each in verdict.metrics if each.status in _SEEN]
    return min(outcomes, key=WORST_FIRST.index, default="unmeasured")


def _seen_of_counts(verdict: VerdictReport) -> Seen:
    if verdict.status not in _SEEN:
        return "unmeasured"
    return "worse" if _faults(verdict) else "fine"


def _faults(verdict: VerdictReport) -> tuple[str, ...]:
    """Return the misses that are not of a metric: they come before those of metrics."""
    worse = [each for each in verdict.metrics if each.status in _WITH_SENTENCE]
    return verdict.misses[: max(len(verdict.misses) - len(worse), 0)]


def _observation(
    verdict: VerdictReport, report: Report, group: Group, seen: Seen, expected: Expected
) -> Observation:
    faults = _faults(verdict)
    sentences = {"counts": faults, "speed": verdict.misses[len(faults) :]}.get(
        group, verdict.misses
    )
    worse = [each for each in verdict.metrics if _SEEN.get(each.status or "") == seen]
    if group != "speed" or seen in ("fine", "unmeasured"):
        worse = []
    name = verdict.name or verdict.workload or "*"
    return Observation(
        key=_line("/".join((report.system, "+".join(verdict.topologies), name, group))),
        title=_line(f"{verdict.title} {_WORDS[group]} on {report.system}"),
        topology=",".join(verdict.topologies),
        group=group,
        seen=seen,
        whole=verdict.kind == "topology",
        cells=(f"{verdict.topologies[0]} {verdict.workload}",) if verdict.workload else (),
        metrics=tuple(each.metric for each in worse),
        evidence=(*sentences, *(f"{each.label}: {each.text}" for each in verdict.evidence)),
        confirmed=_confirmed(worse),
        records=tuple(f"{report.folder}/{path}" for path in verdict.records),
        expected=tuple(expected(verdict)),
    )


def _confirmed(worse: Sequence[MetricReport]) -> str:
    """Return how the first of the worse metrics was confirmed."""
    if not worse:
        return ""
    first = worse[0]
    ends = sorted(first.runs, key=abs)
    starts = f"{len(ends)} fresh start{'s' if len(ends) > 1 else ''}"
    span = f" ({percent(ends[0])} to {percent(ends[-1])})" if ends else ""
    nights = first.suspicious_nights
    row = f", on {nights + 1} nights in a row" if nights else ""
    return f"{first.metric} was worse on each of {starts}{span}{row}."


def _line(text: str) -> str:
    """Return *text* as one printable line."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())
