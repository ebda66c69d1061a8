"""Judging the runs of one cell against the envelopes of its baseline."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.judge.stats import location
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.record import voided_in


def judge_cell(records: Sequence[Record], baseline: Baseline) -> Verdict:
    """Hold the runs of one cell against *baseline*; keys first, then values.

    :param records: the valid runs of one cell, at least one.
    :returns: FAIL with every miss; NOT JUDGED if nothing misses and no latency or throughput has
        a reference, or every latency that has one is void; or PASS.
    :raises ValueError: if *records* is empty or mixes cells.
    """
    cells = {record.cell for record in records}
    if len(cells) != 1:
        raise ValueError(f"expected runs of one cell, got {sorted(cells) or 'none'}")
    first = records[0]
    envelopes = baseline.envelopes(first.topology, first.workload.id)
    misses = tuple(_misses(records, envelopes or {}))
    status = Status.FAIL if misses else Status.PASS
    if not misses and (why := _unjudged(records, envelopes or {})):
        status, misses = Status.NOT_JUDGED, (f"{why} ({baseline.source})",)
    return Verdict(
        status=status,
        subject=first.cell,
        misses=misses,
        evidence=(("baseline", baseline.origin),),
    )


def _unjudged(records: Sequence[Record], envelopes: Mapping[str, Envelope]) -> str | None:
    """Return why the verdict would be no judgement of speed, or None."""
    known, voided = set(envelopes).intersection(METRICS.measured), voided_in(records)
    if not known:
        return "no latency or throughput of this cell has a reference"
    if known.intersection(METRICS.latencies) - voided or not known.intersection(METRICS.latencies):
        return None if known - voided else "every value that has a reference is void"
    return "every latency that has a reference is void"


def _misses(records: Sequence[Record], envelopes: Mapping[str, Envelope]) -> Iterator[str]:
    voided = voided_in(records)
    for name in sorted(envelopes):
        if name in voided:
            continue
        present = values_of(records, name)
        if present is None:
            lacking = sum(record.value(name) is None for record in records)
            yield f"{name} is in the baseline, but {lacking} of {len(records)} runs lack it"
            continue
        try:
            value = location(present, envelopes[name].better)
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        yield from _miss(name, envelopes[name], value)


def _miss(metric: str, envelope: Envelope, value: float) -> Iterator[str]:
    admitted = envelope.admits(value)
    if envelope.known_issue is None:
        if not admitted:
            yield describe(metric, envelope, value)
    elif admitted:
        yield (
            f"{describe(metric, envelope, value)} is met, though a known issue says it is not "
            f"({envelope.known_issue}); remove known_issue"
        )


def describe(metric: str, envelope: Envelope, value: float) -> str:
    """One envelope beside its value, as in ``p99_ttft_ms = 412.7 ms, envelope <= …``."""
    unit = envelope.unit
    sign = {"lower": "<=", "higher": ">=", "equal": "=="}[envelope.better]
    runs = f"{envelope.runs} run" + ("s" if envelope.runs != 1 else "")
    return (
        f"{metric} = {value:.6g} {unit}, envelope {sign} {envelope.limit:.6g} {unit} "
        f"(ref {envelope.ref:.6g} {unit}, {runs})"
    )
