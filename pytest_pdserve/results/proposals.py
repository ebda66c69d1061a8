"""Proposals: candidate baselines from stored nights, with reasons and warnings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import locked
from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.results.nights import counts_of
from pytest_pdserve.results.nights import night_of_runs
from pytest_pdserve.results.nights import source_of
from pytest_pdserve.results.selection import Selection
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A candidate baseline."""

    baseline: Baseline
    """The proposed baseline."""
    reasons: tuple[str, ...]
    """What it contains and what was left out, a sentence each."""
    warnings: tuple[str, ...]
    """What to check before accepting it, a sentence each."""


def proposal_path(baseline: Path) -> Path:
    """Return the file of the proposal, next to the baseline that it would become."""
    return baseline.with_name(f"{baseline.stem}.proposal.json")


def load_proposal(baseline: Path, system: System) -> Baseline:
    """Read the proposal that is not accepted yet.

    :param baseline: file of the baseline.
    :raises ConfigError: if there is none, or it is malformed.
    """
    path = proposal_path(baseline)
    found = load_baseline(path, system=system)
    if found is None:
        raise ConfigError(
            f"{path} does not exist; make it with pdserve baseline propose --system {system.name}"
        )
    return found


def propose(
    selection: Selection, system: System, *, path: Path, last: int, current: Baseline | None
) -> Proposal:
    """Return a baseline of the newest *last* nights of every cell.

    :param selection: sessions, each a night of its own.
    :param path: file of the baseline.
    :param current: the baseline that it would replace; nights of other clients are taken from it.
    :raises ConfigError: if no run has a metric that is judged.
    """
    cells, used = _cells(_columns(selection, last))
    if not cells:
        raise ConfigError(f"no run of {system.name!r} has a judged metric")
    order = [session.run_id for session in selection.sessions]
    sources = sorted(used.values(), key=lambda record: _place(order, record))
    newest = sources[-1]
    baseline = Baseline(
        system=system.name,
        suite=path.stem,
        source=str(proposal_path(path)),
        fingerprint=newest.fingerprint,
        host=newest.host,
        sessions=tuple(source_of(record) for record in sources),
        cells=cells,
    )
    counts = [len(cell.nights) for there in cells.values() for cell in there.values()]
    nights_used = [s for s in selection.sessions if any(r.session.id in used for r in s.records)]
    same = current.of_client(newest.client_kind) if current else None
    return Proposal(
        baseline=baseline.with_other_clients(current) if current else baseline,
        reasons=(
            f"{len(counts)} cells of {_span(counts)}, {len(nights_used)} in all "
            f"({replace(selection, sessions=nights_used).period})",
            *selection.notes,
            *(f"left out: {why}" for why in selection.left_out),
        ),
        warnings=tuple(_warnings(baseline, same, system)),
    )


def _cells(
    columns: Mapping[Key, Sequence[Sequence[Record]]],
) -> tuple[dict[str, dict[str, CellBaseline]], dict[str, Record]]:
    """Return the baseline of each cell, and a record of each session that has a night in one."""
    cells: dict[str, dict[str, CellBaseline]] = {}
    used: dict[str, Record] = {}
    for key, nights in columns.items():
        cell = _cell(nights)
        if cell is not None:
            cells.setdefault(key[0], {})[key[1]] = cell
            in_cell = {night.session for night in cell.nights}
            used |= {r[0].session.id: r[0] for r in nights if r[0].session.id in in_cell}
    return cells, used


def _place(order: Sequence[str], record: Record) -> tuple[str, int]:
    place = order.index(record.session.id) if record.session.id in order else -1
    return record.session.started_at or "", place


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    span = f"{high}" if low == high else f"{low} to {high}"
    return f"{span} night{'s' * (high != 1)}"


def _columns(selection: Selection, last: int) -> dict[Key, list[list[Record]]]:
    """Return the runs of each cell in its newest *last* nights, oldest first."""
    columns: dict[Key, list[list[Record]]] = {}
    for session in selection.sessions:
        for key, runs in session.runs().items():
            columns.setdefault(key, []).append(runs)
    return {key: nights[-last:] for key, nights in sorted(columns.items())}


def _cell(nights: Sequence[Sequence[Record]]) -> CellBaseline | None:
    """Return the baseline of one cell; None without a judged metric.

    The value of a night is its first run: later runs were only made because the first looked slow.
    The first night is the median of its starts if there are enough of them.
    """
    cell_nights = []
    for place, runs in enumerate(nights):
        use_all_starts = place == 0 and len(runs) >= RULE.first_starts
        night = night_of_runs(runs if use_all_starts else runs[:1])
        if night is not None:
            cell_nights.append(night)
    return (
        CellBaseline(counts=counts_of(nights[-1][0]), nights=tuple(cell_nights))
        if cell_nights
        else None
    )


def _warnings(baseline: Baseline, current: Baseline | None, system: System) -> Iterator[str]:
    cells = [cell for there in baseline.cells.values() for cell in there.values()]
    young = sum(len(cell.nights) < RULE.full_nights for cell in cells)
    if young:
        yield (
            f"{young} of {len(cells)} cells have fewer than {RULE.full_nights} nights: their "
            f"limits are {RULE.young_floors:g} floors at least, and their verdicts provisional"
        )
    lost = [key for key in (current.keys if current else ()) if baseline.cell(key) is None]
    gone = sorted(map(" ".join, lost))
    if gone:
        yield (
            f"{len(gone)} cells of the current baseline were not measured in these nights and "
            f"would be removed: {_some(gone)}"
        )
    moved = list(_moved(baseline, system.judgement.all_floors))
    if moved:
        yield (
            f"{len(moved)} metrics changed within these nights, newer half against older: "
            f"{_some(moved)}; a baseline needs nights of one level: name their runs or take fewer "
            "with --last"
        )


def _moved(baseline: Baseline, floors: Mapping[str, float]) -> Iterator[str]:
    """Yield metrics whose newer nights differ from the older ones by more than the floor.

    The limit cannot show this: nights of two levels have a spread that hides their difference.
    """
    for key in baseline.keys:
        cell = baseline.cell(key)
        for name, floor in floors.items():
            logs = [signed_log(v, METRICS[name].better) for v in cell.values(name)] if cell else []
            half = len(logs) // 2
            if half < 2:
                continue
            change = statistics.median(logs[half:]) - statistics.median(logs[:half])
            if abs(change) > math.log1p(floor):
                yield f"{' '.join(key)} {name} {'worse' if change > 0 else 'better'}"


def _some(names: Sequence[str], limit: int = 3) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def write_proposal(proposal: Proposal) -> Path:
    """Write a proposal next to the baseline; ``pdserve baseline diff`` and ``accept`` read it.

    :raises StoreError: if it cannot be written.
    """
    path = Path(proposal.baseline.source)
    write_baseline(path, proposal.baseline)
    return path


def accept(path: Path, system: System, *, approver: str, note: str | None) -> Path:
    """Replace the baseline at *path* by its proposal, and store who approved it.

    :raises ConfigError: if there is no proposal, or *approver* is empty.
    :raises StoreError: if the baseline cannot be written.
    """
    if not approver.strip():
        raise ConfigError("--approver is empty; expected who approves this baseline")
    proposal = load_proposal(path, system)
    today = datetime.now(UTC).date().isoformat()
    accepted = replace(proposal, approver=approver.strip(), accepted_on=today, note=note)
    with locked(path):
        write_baseline(path, accepted)
    try:
        proposal_path(path).unlink()
    except OSError as error:
        raise StoreError(f"{proposal.source} cannot be removed: {error.strerror}") from error
    return path
