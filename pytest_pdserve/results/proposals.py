"""Proposals: candidate baselines made of stored nights, and why they hold what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.judge.stats import envelope_from_runs
from pytest_pdserve.judge.stats import envelope_of_nights
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.results.selection import Selection
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sources import Sources
from pytest_pdserve.values.system import System

Key = tuple[str, str]
"""Topology and workload id."""
Column = Sequence[Record | None]
"""First valid run of a cell in each session, None where there is none or it is not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A candidate baseline."""

    baseline: Baseline
    """What it would be."""
    reasons: tuple[str, ...]
    """What it was made of and what was left out, a sentence each."""
    warnings: tuple[str, ...]
    """What speaks against accepting it, a sentence each."""


def proposal_path(system: System, suite: str) -> Path:
    """File of the proposal, beside the baseline that it would become."""
    return baseline_path(system, f"{suite}.proposal")


def load_proposal(system: System, suite: str) -> Baseline:
    """Read the proposal that waits for somebody to accept it.

    :raises ConfigError: if there is none, or it is malformed.
    """
    path = proposal_path(system, suite)
    found = load_baseline(path, system=system, suite=suite)
    if found is None:
        raise ConfigError(
            f"{path} does not exist; make it with pdserve baseline propose --system {system.name}"
        )
    return found


def propose(
    selection: Selection, system: System, *, suite: str, last: int, current: Baseline | None
) -> Proposal:
    """A baseline of the newest *last* nights of every cell: its first valid run of each.

    :param selection: sessions, each a night of its own.
    :param current: the baseline that it would replace; its known issues are kept.
    :raises ConfigError: if times of *system* are kept per host, or nothing could be taken.
    """
    if system.judgement.host_envelopes:
        raise ConfigError(
            f"{system.name!r} keeps its times per host ([judgement] host_envelopes): the first run "
            "of a cell records them; counts are recorded with --pdserve-record"
        )
    columns = _columns(selection, last)
    used = [n for n in range(len(selection.sessions)) if any(c[n] for c in columns.values())]
    columns = {key: [column[n] for n in used] for key, column in columns.items()}
    cells, lost = _cells(columns, system, current)
    if not cells:
        raise ConfigError(f"no run of {system.name!r} has a metric that could be judged")
    records = [record for column in columns.values() for record in column if record is not None]
    baseline = Baseline(
        system=system.name,
        suite=suite,
        source=str(proposal_path(system, suite)),
        provenance=_sources([selection.sessions[n].session for n in used], records),
        cells=cells,
    )
    nights = [sum(record is not None for record in column) for column in columns.values()]
    return Proposal(
        baseline=baseline,
        reasons=(
            f"{len(columns)} cells of {_span(nights)} nights, {len(used)} in all "
            f"({replace(selection, sessions=[selection.sessions[n] for n in used]).period})",
            *(f"{why} (left out of {count} cells)" for why, count in sorted(lost.items())),
            *(f"left out: {why}" for why in selection.left_out),
        ),
        warnings=tuple(_warnings(baseline, current)),
    )


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{most}" if least == most else f"{least} to {most}"


def _columns(selection: Selection, last: int) -> dict[Key, list[Record | None]]:
    nights = [session.runs() for session in selection.sessions]
    columns: dict[Key, list[Record | None]] = {}
    for key in sorted({key for night in nights for key in night}):
        places = [n for n, night in enumerate(nights) if key in night][-last:]
        columns[key] = [night[key][0] if n in places else None for n, night in enumerate(nights)]
    return columns


def _cells(
    columns: Mapping[Key, Column], system: System, current: Baseline | None
) -> tuple[dict[str, dict[str, Mapping[str, Envelope]]], Counter[str]]:
    """Return the envelopes of all cells that have any, and why metrics were left out, counted."""
    lost: Counter[str] = Counter()
    cells: dict[str, dict[str, Mapping[str, Envelope]]] = {}
    for (topology, workload), column in sorted(columns.items()):
        known = (current.envelopes(topology, workload) if current else None) or {}
        metrics = dict(_envelopes(column, system, known, lost))
        if metrics:
            cells.setdefault(topology, {})[workload] = metrics
    return cells, lost


def _envelopes(
    column: Column, system: System, known: Mapping[str, Envelope], lost: Counter[str]
) -> Iterator[tuple[str, Envelope]]:
    """Envelopes of one cell.

    :param lost: counts why metrics are left out.
    """
    records = [record for record in column if record is not None]
    for name in (*METRICS.times, *METRICS.counts):
        values = [None if record is None else record.value(name) for record in column]
        present = [value for value in values if value is not None]
        fixed = system.judgement.rtol.get(name)
        nightly = fixed is None and METRICS[name].better != "equal"
        if not present:
            continue
        if len(present) < len(records) and not nightly:
            lost[f"{name}: some runs lack it"] += 1
        elif METRICS[name].better == "equal" and len(set(present)) > 1:
            lost[f"{name}: it is not the same in all runs"] += 1
        elif METRICS[name].better != "equal" and min(present) <= 0:
            lost[f"{name}: it is {min(present):g} in a run"] += 1
        elif nightly:
            yield name, envelope_of_nights(name, values)
        else:
            issue = known[name].known_issue if name in known else None
            yield name, replace(envelope_from_runs(name, present, fixed or 0.0), known_issue=issue)


def _sources(runs: Sequence[SessionRef], records: Sequence[Record]) -> Sources:
    """Where the values come from; versions and host are those of the newest, and of all."""
    newest = max(records, key=lambda record: record.started_at)
    seeds = {seed for r in records if isinstance(seed := r.client.get("seed"), int)}
    return Sources(
        date=datetime.now(UTC).date().isoformat(),
        runs=tuple(runs),
        fingerprint=newest.fingerprint,
        versions=newest.versions,
        host=newest.host,
        nodes=tuple(sorted({node for record in records for node in record.nodes})),
        seeds=tuple(sorted(seeds)),
    )


def _warnings(baseline: Baseline, current: Baseline | None) -> Iterator[str]:
    rules = Rules()
    yield from _short_tests(baseline, rules)
    yield from _lost_cells(baseline, current)
    if baseline.has_values:
        yield from _unlike_values(baseline, rules)


def _short_tests(baseline: Baseline, rules: Rules) -> Iterator[str]:
    """Warn of tests with too few nights for a FAIL."""
    runs = [
        envelope.runs
        for workloads in baseline.cells.values()
        for cell in workloads.values()
        for envelope in cell.values()
        if envelope.values
    ]
    short = sum(count < rules.least_baseline_runs for count in runs)
    if short:
        yield (
            f"{short} of {len(runs)} tests have fewer than {rules.least_baseline_runs} nights: no "
            f"single night can FAIL them (they have {_span(runs)})"
        )


def _lost_cells(baseline: Baseline, current: Baseline | None) -> Iterator[str]:
    """Warn of cells that the present baseline has and this one would not have."""
    gone = sorted(
        f"{topology} {workload}"
        for topology, workloads in (current.cells if current else {}).items()
        for workload in workloads
        if baseline.envelopes(topology, workload) is None
    )
    if gone:
        yield (
            f"{len(gone)} cells of the present baseline were not measured in these nights and "
            f"would be without one: {_some(gone)}"
        )


def _unlike_values(baseline: Baseline, rules: Rules) -> Iterator[str]:
    """Warn of outliers, and of tests that changed within these nights."""
    from pytest_pdserve.judge.suitability import suitability

    seen = suitability(baseline, rules)
    if seen.strays:
        share = seen.strays / seen.values
        yield (
            f"{seen.strays} of {seen.values} values ({share:.1%}) lie more than "
            f"{rules.outlier_mads:g} MAD from the others: kept, but not in the reference"
        )
    if seen.changes:
        moved = [
            f"{' '.join(change.cell)} {change.metric} {abs(change.worse):.1%} "
            + ("worse" if change.worse > 0 else "better")
            for change in seen.changes
        ]
        yield (
            f"{len(moved)} tests changed on the way, newer half against older: {_some(moved)}; "
            "nights of one kind are wanted, so name their runs or take fewer with --last"
        )


def _some(said: Sequence[str], most: int = 3) -> str:
    more = len(said) - most
    return ", ".join(said[:most]) + (f" and {more} more" if more > 0 else "")


def write_proposal(proposal: Proposal) -> Path:
    """Write it beside the baseline, where ``pdserve baseline diff`` and ``accept`` look for it.

    :raises StoreError: if it cannot be written.
    """
    path = Path(proposal.baseline.source)
    write_baseline(path, proposal.baseline)
    return path


def accept(system: System, suite: str, *, approver: str, note: str | None) -> Path:
    """Make the proposal the baseline, by name of who answers for it; the proposal is gone then.

    :raises ConfigError: if there is no proposal, or *approver* is empty.
    :raises StoreError: if the baseline cannot be written.
    """
    if not approver.strip():
        raise ConfigError("--approver is empty; say who answers for this baseline")
    proposal, path = load_proposal(system, suite), baseline_path(system, suite)
    assert proposal.provenance is not None
    provenance = replace(
        proposal.provenance,
        date=datetime.now(UTC).date().isoformat(),
        approver=approver.strip(),
        note=note or proposal.provenance.note,
    )
    write_baseline(path, replace(proposal, provenance=provenance))
    try:
        proposal_path(system, suite).unlink()
    except OSError as error:
        raise StoreError(f"{proposal.source} cannot be removed: {error.strerror}") from error
    return path
