"""A session's report as Markdown, for a comment on a pull request or a step summary."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.findings import merged
from pytest_pdserve.report.formats.markdown_text import escaped
from pytest_pdserve.report.phases import phase_line
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.report import FindingReport
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport

MAX_CHARACTERS = 60_000
"""Of the whole text: a comment on GitHub may have 65,536."""
_RESERVED = 4_000
"""Characters kept for the titles and heads of all sections."""
_MAX_SENTENCE = 600
"""Characters of a sentence that are kept."""
_MAX_VERSION = 60
"""Characters of a version that are kept."""
_MAX_DIFFERENCES = 8
"""Differences that are listed."""
_VERDICT = ("verdict", "of", "why")
"""Columns of a table of verdicts."""
_FOLDED = ("PASS", "NOT ASKED", "NEW", "MEASURED")
"""Outcomes that need no attention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Things under a title; as many are shown as there is room for."""

    title: str
    """Not escaped, so never text of a record; empty for a section that is not folded."""
    share: float
    """Share of the text that its lines may take, plus what sections before it left."""
    items: Sequence[Any]
    """Its items, the most important first."""
    lines_of: Callable[[Any], Iterable[str]]
    """Returns the lines of one of them; rows where it is a table."""
    columns: tuple[str, ...] = ()
    """Of a table."""

    def render(self, room: int) -> tuple[str, int]:
        """Return the section with all that fits into *room* characters, and what is left."""
        kept: list[str] = []
        left = len(self.items)
        for item in self.items:
            lines = [*self.lines_of(item)]
            size = sum(len(line) + 1 for line in lines)
            if size > room:
                break
            kept += lines
            room, left = room - size, left - 1
        head = []
        if self.columns and kept:
            head = [_row(self.columns), _row(["---"] * len(self.columns))]
        more = ["", f"… and {left} more, in the session's report.json"] if left else []
        opening = [f"<details><summary>{self.title}</summary>", ""] if self.title else []
        closing = ["", "</details>"] if self.title else []
        return "\n".join(["", *opening, *head, *kept, *more, *closing]), room


def markdown(report: Report) -> str:
    """Return the report, the verdict first and the worst subjects next; all else is folded.

    It has at most :data:`MAX_CHARACTERS`; a section that is cut counts what it leaves out.
    """
    parts = [f"## {escaped(report.headline)}", "", *_top(report)]
    available = MAX_CHARACTERS - _RESERVED - sum(len(part) + 1 for part in parts)
    room = 0
    for section in _sections(report):
        room += int(section.share * available)
        if section.items:
            text, room = section.render(room)
            parts.append(text)
    return "\n".join(parts) + "\n"


def _top(report: Report) -> Iterator[str]:
    """Yield the session, the changes since the baseline, and the counts of tests."""
    if report.session is not None:
        when = report.session.started_at or "at an unknown time"
        again = ", judged again by the baseline of today" if report.rejudged else ""
        yield f"Session {escaped(report.session.id)}, {when}{again}."
    if report.differences:
        changed = [
            f"{escaped(each.what, _MAX_VERSION)} {escaped(each.before, _MAX_VERSION)} → "
            f"{escaped(each.now, _MAX_VERSION)}"
            for each in report.differences[:_MAX_DIFFERENCES]
        ]
        more = len(report.differences) - _MAX_DIFFERENCES
        changed += [f"{more} more"] if more > 0 else []
        yield f"Since the baseline: {', '.join(changed)}."
    if report.tests:
        counts = ", ".join(f"{count} {escaped(name)}" for name, count in report.tests.items())
        yield f"Tests: {counts}."


def _sections(report: Report) -> Iterator[Section]:
    """Yield the sections, the most important first; their shares add up to 1."""
    yield Section(title="", share=0.05, items=report.errors, lines_of=_reason)
    yield from _worse(report)
    yield from _all_verdicts(report)
    title = f"Not judged: {len(report.not_judged)}"
    yield Section(title=title, share=0.05, items=report.not_judged, lines_of=_reason)
    title = f"Cells of the baseline that were not measured: {len(report.not_measured)}"
    yield Section(title=title, share=0.02, items=report.not_measured, lines_of=_line)
    findings = merged(report.findings)
    title = f"What the checks say: {len(findings)}"
    yield Section(title=title, share=0.05, items=findings, lines_of=_finding)
    about = [*_about(report)]
    yield Section(title="Time, versions and baseline", share=0.05, items=about, lines_of=_line)


def _worse(report: Report) -> Iterator[Section]:
    """Yield the sections on verdicts that need attention: sentences, metrics, evidence."""
    worse = [each for each in report.verdicts if each.status not in _FOLDED]
    yield Section(title="", share=0.3, items=worse, lines_of=_verdict_row, columns=_VERDICT)
    cells = [each for each in worse if each.kind == "cell"]
    yield Section(
        title=f"Metrics of {_count(len(cells), 'cell')} of these",
        share=0.2,
        items=cells,
        lines_of=_metric_rows,
        columns=("of", "metric", "value", "reference", "change", "limit", "verdict", "since"),
    )
    title = f"Evidence of {_count(len(worse), 'verdict')}"
    yield Section(title=title, share=0.1, items=worse, lines_of=_evidence)


def _all_verdicts(report: Report) -> Iterator[Section]:
    """Yield the sections on all cells, and on other verdicts that need no attention."""
    cells = [each for each in report.verdicts if each.kind == "cell"]
    headings = [escaped(f"{metric.heading} {metric.unit}") for metric in METRICS.shown]
    yield Section(
        title=f"All cells: {len(cells)}",
        share=0.15,
        items=cells,
        lines_of=_cell_row,
        columns=("verdict", "of", *headings),
    )
    others = [each for each in report.verdicts if each.kind != "cell" and each.status in _FOLDED]
    title = f"Topologies, claims and smoke tests: {len(others)}"
    yield Section(title=title, share=0.03, items=others, lines_of=_verdict_row, columns=_VERDICT)


def _cell_row(cell: VerdictReport) -> Iterator[str]:
    """Yield the row of a cell, with the metrics of the terminal's table."""
    values = {metric.metric: metric.value for metric in cell.metrics}
    numbers = [_number(values.get(metric.name)) for metric in METRICS.shown]
    yield _row([cell.status, escaped(cell.title), *numbers])


def _verdict_row(verdict: VerdictReport) -> Iterator[str]:
    title = verdict.subject if verdict.kind == "claim" else verdict.title
    more = len(verdict.misses) - 1
    why = escaped(verdict.misses[0], _MAX_SENTENCE) if verdict.misses else ""
    yield _row([verdict.status, escaped(title), f"{why} (and {more} more)" if more > 0 else why])


def _metric_rows(cell: VerdictReport) -> Iterator[str]:
    for metric in cell.metrics:
        if metric.status is not None or (metric.judged and metric.void):
            yield _row(
                [
                    escaped(cell.title),
                    escaped(metric.metric),
                    "void" if metric.void else _number(metric.value, metric),
                    _number(metric.reference, metric),
                    _percent(metric.change),
                    _percent(metric.limit),
                    metric.status or "-",
                    escaped(metric.since.night) if metric.since else "-",
                ]
            )


def _evidence(verdict: VerdictReport) -> Iterator[str]:
    yield f"- {verdict.status} {escaped(verdict.title)}"
    for each in verdict.evidence:
        yield f"  - {escaped(each.label)}: {escaped(each.text, _MAX_SENTENCE)}"
    yield from (f"  - record: {escaped(path, _MAX_SENTENCE)}" for path in verdict.records)


def _reason(reason: Reason) -> Iterator[str]:
    yield f"- {escaped(reason.subject)}: {escaped(reason.why, _MAX_SENTENCE)}"


def _finding(finding: FindingReport) -> Iterator[str]:
    more = len(finding.cells) - 1
    cells = f"{escaped(finding.cells[0])}{f' and {more} more' if more > 0 else ''}"
    yield f"- {finding.severity}: {escaped(finding.message, _MAX_SENTENCE)} ({cells})"


def _line(text: str) -> Iterator[str]:
    yield f"- {escaped(text, _MAX_SENTENCE)}"


def _about(report: Report) -> Iterator[str]:
    """Yield lines on time, baseline, notes and versions."""
    if report.phases is not None:
        yield f"time: {phase_line(report.phases)}"
    if report.baseline:
        yield f"baseline: {report.baseline}"
    yield from report.notes
    yield from (f"{name} {version}" for name, version in report.versions.items())
    if report.folder:
        yield f"records and logs: {report.folder}"


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _number(value: float | None, metric: MetricReport | None = None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{number(value)} {escaped(metric.unit)}" if metric else number(value)


def _percent(change: float | None) -> str:
    return percent(change) if change is not None and math.isfinite(change) else "-"
