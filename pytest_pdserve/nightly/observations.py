"""What one night showed of everything that can be a regression. Pure."""

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
"""What the night said: FAIL; SUSPICIOUS or INCONCLUSIVE; EXPECTED; anything else that was judged;
nothing that could be judged."""
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
_TRUE_OF_METRICS = ("FAIL", "SUSPICIOUS", "EXPECTED")
"""Outcomes of a metric that has a sentence among the misses of its verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one night showed of one thing that can be a regression."""

    key: str
    """The same on every night."""
    title: str
    """In one line."""
    topology: str
    """Topology id; several, with commas, of a claim."""
    group: Group
    """What of it this is about."""
    seen: Seen
    """What the night said."""
    whole: bool = False
    """Whether it is a topology as a whole."""
    cells: tuple[str, ...] = ()
    """Topology and workload of each cell."""
    metrics: tuple[str, ...] = ()
    """Metrics that are worse."""
    evidence: tuple[str, ...] = ()
    """A sentence each."""
    confirmed: str = ""
    """How it was confirmed."""
    records: tuple[str, ...] = ()
    """Paths of the records."""
    expected: tuple[str, ...] = ()
    """Entries of expected.toml about it."""

    def joined(self, other: Observation) -> Observation:
        """Return this topology as a whole with what was seen of one of its cells."""
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
    """Return what a report says of each cell, topology, claim and smoke test, by key."""
    found = [each for said in report.verdicts for each in _of(said, report, expected)]
    return {each.key: each for each in found}


def troubles(report: Report) -> tuple[str, ...]:
    """Return what failed on machines, servers and the network, a sentence each.

    Tests that fail without a verdict are among them, and so is a night that measured nothing.
    """
    said = [f"{each.title}: {each.misses[0]}" for each in _errors(report) if each.misses]
    said += [f"{each.title} ended in an ERROR" for each in _errors(report) if not each.misses]
    said += [f"{each.subject}: {each.why}" for each in report.errors]
    if not report.measured and not report.figures:
        said.append(report.headline or "Nothing was measured")
    return tuple(dict.fromkeys(said))


def _errors(report: Report) -> Iterator[VerdictReport]:
    return (said for said in report.verdicts if said.status == "ERROR")


def _of(said: VerdictReport, report: Report, expected: Expected) -> Iterator[Observation]:
    """Yield what a verdict says of each group of its subject."""
    if said.kind in ("cell", "topology"):
        yield _made(said, report, "speed", _seen_of_speed(said), expected)
        if said.kind == "cell":
            yield _made(said, report, "counts", _seen_of_counts(said), expected)
    else:
        group: Group = "claim" if said.kind == "claim" else "answers"
        yield _made(said, report, group, _SEEN.get(said.status, "unmeasured"), expected)


def _seen_of_speed(said: VerdictReport) -> Seen:
    outcomes = [_SEEN[each.status] for each in said.metrics if each.status in _SEEN]
    return min(outcomes, key=WORST_FIRST.index, default="unmeasured")


def _seen_of_counts(said: VerdictReport) -> Seen:
    if said.status not in _SEEN:
        return "unmeasured"
    return "worse" if _faults(said) else "fine"


def _faults(said: VerdictReport) -> tuple[str, ...]:
    """Return the misses that are of no metric: they stand before one sentence for each metric."""
    worse = [each for each in said.metrics if each.status in _TRUE_OF_METRICS]
    return said.misses[: max(len(said.misses) - len(worse), 0)]


def _made(
    said: VerdictReport, report: Report, group: Group, seen: Seen, expected: Expected
) -> Observation:
    faults = _faults(said)
    sentences = {"counts": faults, "speed": said.misses[len(faults) :]}.get(group, said.misses)
    worse = [each for each in said.metrics if _SEEN.get(each.status or "") == seen]
    if group != "speed" or seen in ("fine", "unmeasured"):
        worse = []
    name = said.name or said.workload or "*"
    return Observation(
        key=_line("/".join((report.system, "+".join(said.topologies), name, group))),
        title=_line(f"{said.title} {_WORDS[group]} on {report.system}"),
        topology=",".join(said.topologies),
        group=group,
        seen=seen,
        whole=said.kind == "topology",
        cells=(f"{said.topologies[0]} {said.workload}",) if said.workload else (),
        metrics=tuple(each.metric for each in worse),
        evidence=(*sentences, *(f"{each.label}: {each.text}" for each in said.evidence)),
        confirmed=_confirmed(worse),
        records=tuple(f"{report.folder}/{path}" for path in said.records),
        expected=tuple(expected(said)),
    )


def _confirmed(worse: Sequence[MetricReport]) -> str:
    """Return how the first of the metrics that are worse was confirmed."""
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
    """Return *text* as one line that every terminal can show."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())
