"""Verdicts in a report: on cells, topologies, claims, and smoke tests of servers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.history import one_per_start
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.record import voided_in
from pytest_pdserve.values.report import EvidenceLine
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Outcome
from pytest_pdserve.values.report import VerdictReport

_OF_RECORDS = ("record", "records")
"""Labels of evidence that a report has as paths relative to the session's folder."""


def cell_report(
    verdict: Verdict | None, records: Sequence[Record], paths: Sequence[str], *, why: str = ""
) -> VerdictReport:
    """Return the verdict on a cell, with all of its metrics.

    :param verdict: None where none was given; the cell is then ``MEASURED``.
    :param paths: files of *records*, relative to the session's folder.
    :param why: why there is no verdict.
    """
    first = records[0]
    return VerdictReport(
        kind="cell",
        status=_outcome(verdict) if verdict else "MEASURED",
        subject=first.cell,
        topologies=(first.topology,),
        workload=first.workload.id,
        misses=verdict.misses if verdict else (why,),
        evidence=_evidence(verdict) if verdict else (),
        severity=verdict.severity if verdict else 0.0,
        metrics=(*_cell_metrics(verdict.metrics if verdict else (), records),),
        runs=len(records),
        records=tuple(paths),
    )


def topology_report(topology: str, verdict: Verdict) -> VerdictReport:
    """Return the topology-wide verdict."""
    return VerdictReport(
        kind="topology",
        status=_outcome(verdict),
        subject=verdict.subject,
        topologies=(topology,),
        misses=verdict.misses,
        evidence=_evidence(verdict),
        severity=verdict.severity,
        metrics=tuple(_metric(metric) for metric in verdict.metrics),
    )


def claim_report(claim: Claim, verdict: ClaimVerdict) -> VerdictReport:
    """Return the verdict on a claim."""
    return VerdictReport(
        kind="claim",
        status=_outcome(verdict),
        subject=verdict.subject,
        name=claim.id,
        topologies=claim.topologies,
        misses=verdict.misses or ((verdict.detail,) if verdict.detail else ()),
        evidence=_evidence(verdict),
    )


def smoke_report(test: str, topology: str, verdict: Verdict) -> VerdictReport:
    """Return the verdict of a test that sent requests to servers, without a baseline.

    :param test: its node id.
    :param topology: the servers' topology; empty where the test has none.
    """
    return VerdictReport(
        kind="smoke",
        status=_outcome(verdict),
        subject=verdict.subject,
        name=test,
        topologies=(topology,) if topology else (),
        misses=verdict.misses,
        evidence=_evidence(verdict),
    )


def _outcome(verdict: Verdict) -> Outcome:
    return verdict.status.value


def _evidence(verdict: Verdict) -> tuple[EvidenceLine, ...]:
    return tuple(
        EvidenceLine(label=label, text=text)
        for label, text in verdict.evidence
        if label not in _OF_RECORDS
    )


def _cell_metrics(
    judged: Sequence[MetricVerdict], records: Sequence[Record]
) -> Iterator[MetricReport]:
    """Yield the metrics of a cell: those with a reference first, in the order of their verdicts."""
    there = {verdict.metric: verdict for verdict in judged}
    for verdict in judged:
        yield _metric(verdict, valued=True)
    starts, voided = one_per_start(records), voided_in(records)
    for name, row in METRICS.items():
        if name in there or not any(name in record.metrics for record in records):
            continue
        values = values_of(starts, name)
        value = statistics.median(values) if values else None
        yield MetricReport(
            metric=name,
            unit=row.unit,
            better=row.better,
            value=value if value is not None and math.isfinite(value) else None,
            void=name in voided,
            judged=row.judged,
        )


def _metric(verdict: MetricVerdict, *, valued: bool = False) -> MetricReport:
    """Return a metric that was compared with a reference.

    :param valued: whether it has a value: that of a topology is a change alone.
    """
    row, seen = METRICS[verdict.metric], verdict.tonight
    reference = seen.reference
    return MetricReport(
        metric=verdict.metric,
        unit=row.unit,
        better=row.better,
        value=as_value(reference.median + seen.change, row.better) if valued else None,
        judged=True,
        status=verdict.status.value,
        reference=as_value(reference.median, row.better) if valued else None,
        nights=reference.nights,
        provisional=reference.is_provisional,
        change=as_change(seen.change, row.better),
        runs=tuple(as_change(change, row.better) for change in seen.changes),
        limit=as_change(reference.limit, row.better),
        suspicious_nights=verdict.nights,
        since=verdict.worse_since,
        improved=verdict.is_better,
        improved_tonight=verdict.severity < -1,
    )
