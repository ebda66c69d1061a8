"""The report of a session as one value: verdicts, errors, findings, versions, times, cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.report.nights import night_notes
from pytest_pdserve.report.subjects import cell_report
from pytest_pdserve.report.subjects import claim_report
from pytest_pdserve.report.subjects import smoke_report
from pytest_pdserve.report.subjects import topology_report
from pytest_pdserve.report.terminal import new_lines
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import load_times
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.rejudge import RejudgedSession
from pytest_pdserve.session.rejudge import invalid_verdict
from pytest_pdserve.session.session import Session
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import OUTCOMES
from pytest_pdserve.values.report import Cost
from pytest_pdserve.values.report import Difference
from pytest_pdserve.values.report import FindingReport
from pytest_pdserve.values.report import Outcome
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.system import System

_NOT_JUDGED = ("NOT JUDGED", "NOT ASKED", "MEASURED")
_SEVERITIES = ("invalid", "unproven", "note")
_MAX_HEADLINE = 300
"""Characters of the first line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PytestOutcomes:
    """Outcomes of the tests of a session, as pytest counts them."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """How many ``passed``, ``failed`` and so on."""
    errors: tuple[Reason, ...] = ()
    """Tests that failed or ended in an ERROR, without a verdict."""
    skipped: tuple[Reason, ...] = ()
    """Tests that were skipped without one."""
    notes: tuple[str, ...] = ()
    """Further notes of the summary."""
    ended: bool = True
    """True if the session came to its end."""


def session_report(session: Session, tests: PytestOutcomes) -> Report:
    """Return the report of a session that has come to its end.

    :raises PdserveError: if its baseline or its history cannot be read.
    """
    system = session.system
    cells = (*session.cells.values(), *session.invalid.values())
    records = [record for cell in cells for record in cell.records]
    stored = system.figures is None
    times = session.phases.times if stored and not system.simulated else None
    report = Report(
        **_system_fields(system),
        measured=bool(cells),
        session=session.store.session if stored else None,
        folder=str(session.store.folder) if stored else "",
        ended=tests.ended,
        topologies=tuple(topology.id for topology in session.settings.topologies),
        versions=dict(session.provenance.versions),
        client=session.provenance.client_kind if cells else "",
        tests=dict(tests.counts),
        verdicts=tuple(_session_verdicts(session)),
        errors=(*(Reason(subject="baseline", why=why) for why in session.trouble), *tests.errors),
        not_judged=tests.skipped,
        findings=tuple(_findings(records)),
        notes=tests.notes,
        left_out=tuple(dict.fromkeys(session.deadline.left_out)),
        phases=None if times is None else replace(times, ended=True),
        cost=_cost(times),
    )
    if cells:
        notes = (*night_notes(session), *new_lines(session), *tests.notes)
        report = replace(report, notes=notes, **_compared_with(session.session_judge, records))
    return finished(report)


def rejudged_report(judged: RejudgedSession, folder: Path) -> Report:
    """Return the report of a stored session, judged by the baseline of today.

    :param folder: its run folder.
    :raises ConfigError: if its phases are malformed.
    """
    stored, judge = judged.session, judged.session_judge
    times = load_times(folder)
    report = Report(
        **_system_fields(judge.system),
        measured=True,
        session=stored.session,
        folder=str(folder),
        ended=times is None or times.ended,
        rejudged=True,
        topologies=tuple(dict.fromkeys(topology for topology, _ in judged.cells)),
        versions=dict(stored.records[0].versions),
        client=stored.client_kind,
        verdicts=tuple(_stored_verdicts(judged, folder)),
        findings=tuple(_findings(stored.records)),
        notes=(*judge.expected.problems, *(f"unreadable: {why}" for why in stored.unreadable)),
        phases=times,
        cost=_cost(times),
        **_compared_with(judge, stored.records),
    )
    return finished(report)


def unmeasured_report(system: System, **fields: Any) -> Report:
    """Return the report of a session that measured nothing.

    :param fields: further fields of the :class:`Report`.
    """
    return finished(Report(measured=False, **_system_fields(system), **fields))


def finished(report: Report) -> Report:
    """Return *report* with its verdicts in order and counted, and its first line; redacted."""
    verdicts = sorted(
        report.verdicts, key=lambda each: (OUTCOMES.index(each.status), -each.severity)
    )
    counts = Counter(each.status for each in verdicts)
    present: list[Outcome] = list(counts)
    if report.errors:
        present.append("ERROR")
    not_judged = (
        Reason(subject=each.title, why=each.misses[0] if each.misses else str(each.status))
        for each in verdicts
        if each.status in _NOT_JUDGED
    )
    report = replace(
        report,
        status=min(present, key=OUTCOMES.index, default=None),
        verdicts=tuple(verdicts),
        outcomes={name: counts[name] for name in OUTCOMES if counts[name]},
        not_judged=(*not_judged, *report.not_judged),
    )
    return environment_redactor().value(replace(report, headline=_headline(report)))


def _headline(report: Report) -> str:
    """Return the outcome of a session in one line."""
    counted = ", ".join(f"{count} {name}" for name, count in report.outcomes.items())
    mark = " (SIMULATED, no server ran)" if report.simulated else ""
    if report.figures:
        mark = " (FIGURES, nothing was measured)"
    verdicts = f"{report.status} on {report.system}{mark}: {counted}" if counted else ""
    line = verdicts
    if not report.measured and not (verdicts and report.figures):
        why = f": {report.errors[0].why}" if report.errors and not verdicts else ""
        nothing = f"Nothing was measured on {report.system}{why}"
        if not (report.ended or why):  # whatever it measured, this is no report of it
            nothing = f"No results of {report.system}: the session did not come to its end"
        line = f"{nothing}{verdicts and f'; {verdicts}'}"
    line = " ".join("; ".join([line, *_problems(report)]).split())
    line = "".join(character for character in line if character.isprintable())
    return line if len(line) <= _MAX_HEADLINE else f"{line[: _MAX_HEADLINE - 1]}…"


def _problems(report: Report) -> Iterator[str]:
    """Yield what went wrong apart from the verdicts."""
    failed = sum(report.tests.get(name, 0) for name in ("failed", "error"))
    if number := len(report.errors):
        yield f"{number} error{'s' if number > 1 else ''} without a verdict"
    elif failed and report.status not in ("FAIL", "ERROR"):
        yield f"{failed} test{'s' if failed > 1 else ''} failed"
    if report.measured and not report.ended:
        yield "the session did not come to its end"


def _system_fields(system: System) -> dict[str, Any]:
    return {
        "system": system.name,
        "description": system.description,
        "simulated": system.simulated,
        "figures": system.figures is not None,
    }


def _session_verdicts(session: Session) -> Iterator[VerdictReport]:
    for name, verdict in session.topology_verdicts.items():
        yield topology_report(name, verdict)
    few = f"measured on fewer than {session.settings.first_runs} starts when the session ended"
    for key, cell in session.cells.items():
        why = few if key in session.waiting else "no test judged it"
        yield cell_report(session.verdicts.get(key), cell.records, _paths(cell, session), why=why)
    for cell in session.invalid.values():
        yield cell_report(invalid_verdict(cell.records), cell.records, _paths(cell, session))
    for claim, verdict in session.claims:
        yield claim_report(claim, verdict)
    for test, (topology, verdict) in session.smoke.items():
        yield smoke_report(test, topology, verdict)


def _paths(cell: Cell, session: Session) -> list[str]:
    return [path.relative_to(session.store.folder).as_posix() for path in cell.paths]


def _stored_verdicts(judged: RejudgedSession, folder: Path) -> Iterator[VerdictReport]:
    store = RunStore(folder=folder, session=judged.session.session)
    cells: dict[Key, list[Record]] = {}
    for record in judged.session.records:
        cells.setdefault((record.topology, record.workload.id), []).append(record)
    for name, verdict in judged.topologies.items():
        yield topology_report(name, verdict)
    for key, records in cells.items():
        stems = [store.stem(each.topology, each.workload, each.repeat) for each in records]
        paths = [f"{stem.relative_to(folder).as_posix()}{RECORD_SUFFIX}" for stem in stems]
        yield cell_report(judged.cells[key], records, paths)
    for claim, verdict in judged.claims:
        yield claim_report(claim, verdict)


def _compared_with(judge: SessionJudge, records: Sequence[Record]) -> dict[str, Any]:
    """Return a report's fields on the baseline and on the nodes that were measured on."""
    baseline = judge.baseline
    measured = {(record.topology, record.workload.id) for record in records}
    topologies = {topology for topology, _ in measured}
    nodes = tuple(dict.fromkeys(node for record in records for node in record.nodes))
    differences = list(judge.changed_versions)
    if baseline is not None and baseline.newest is not None and judge.new_nodes:
        before, now = ", ".join(baseline.newest.nodes), ", ".join(nodes)
        differences.append(Difference(what="nodes", before=before, now=now))
    return {
        "nodes": nodes,
        "baseline": judge.origin,
        "differences": tuple(differences),
        "not_measured": tuple(
            " ".join(key)
            for key in (baseline.keys if baseline else ())
            if key[0] in topologies and key not in measured
        ),
    }


def _findings(records: Sequence[Record]) -> list[FindingReport]:
    """Return the findings of the runs, each sentence once, those of invalid runs first."""
    cells: dict[tuple[str, str, str], dict[str, None]] = {}
    for record in records:
        for each in record.findings:
            key = (each.severity, each.check, each.message)
            cells.setdefault(key, {})[f"{record.topology} {record.workload.id}"] = None
    findings = (
        FindingReport(severity=severity, check=check, message=message, cells=tuple(there))  # type: ignore[arg-type]
        for (severity, check, message), there in cells.items()
    )
    return sorted(findings, key=lambda each: _SEVERITIES.index(each.severity))


def _cost(times: SessionTimes | None) -> Cost | None:
    if times is None or not times.held.nodes:
        return None
    held, hours = times.held, times.held.seconds / 3600
    price = held.price_per_gpu_hour
    return Cost(
        node_hours=held.nodes * hours,
        gpu_hours=held.gpus * hours,
        price=None if price is None else held.gpus * hours * price,
        currency=held.currency,
    )
