"""Add tonight's runs to the baseline: NEW cells at once, PASS cells at the end of the session."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.baselines import join_night
from pytest_pdserve.results.history import one_per_start
from pytest_pdserve.results.nights import counts_of
from pytest_pdserve.results.nights import night_of_runs
from pytest_pdserve.results.nights import source_of
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import voided_in

if TYPE_CHECKING:
    from pytest_pdserve.results.history import Key
    from pytest_pdserve.session.cell import Cell
    from pytest_pdserve.session.session import Session

NOT_PASSED = frozenset({Status.FAIL, Status.SUSPICIOUS, Status.EXPECTED})
"""Verdicts of a topology whose cells do not join the baseline."""


def judge_new(session: Session, cell: Cell) -> Verdict:
    """Record the runs of a cell without a reference as its first night; return its verdict.

    :raises ConfigError: if the baseline cannot be used.
    :raises StoreError: if it cannot be written.
    """
    subject = cell.records[0].cell
    night = night_of_runs(one_per_start(cell.records))
    if night is None or voided_in(cell.records).issuperset(METRICS.latencies):
        why = "every latency is void, so this run cannot become the reference"
        return Verdict(status=Status.NOT_JUDGED, subject=subject, misses=(why,))
    where = not_recorded(session)
    if not where:
        _join(session, [cell])
        where = f"in {session.session_judge.path}"
    several = "s" if night.starts > 1 else ""
    reference = f"the median of {night.starts} start{several}, recorded {where}"
    evidence = [("reference", reference)]
    if others := other_clients(session, [(cell.topology, cell.workload.id)]):
        evidence.append(("client", others))
    return Verdict(status=Status.NEW, subject=subject, evidence=tuple(evidence))


def other_clients(session: Session, keys: Sequence[Key]) -> str:
    """Return a note on references of new cells with other clients; empty if there are none."""
    judge = session.session_judge
    kinds = sorted({kind for key in keys for kind in judge.other_clients(key)})
    ours = judge.client_kind
    return f"{ours}, to which references of {', '.join(kinds)} are not compared" if kinds else ""


def not_recorded(session: Session) -> str:
    """Return why nights of this session are not recorded; empty if they are recorded."""
    if not session.settings.record:
        return "nowhere (--pdserve-no-record)"
    if not session.session_judge.keeps_nights:
        return "nowhere (the system's baseline is not of this endpoint)"
    return ""


def join_nights(session: Session) -> None:
    """Add the session's PASS cells to the baseline.

    :raises ConfigError: if the baseline cannot be used.
    :raises StoreError: if it cannot be written.
    """
    if not not_recorded(session):
        _join(session, list(_joining(session)))


def _joining(session: Session) -> Iterator[Cell]:
    """Yield the cells that passed, of topologies that are not worse as a whole.

    A topology that no test judged as a whole is judged here. Cells whose baseline already has a
    night of tonight, or is full, are left out.
    """
    judge, tonight = session.session_judge, session.tonight()
    passed = [
        key
        for key in session.cells
        if (verdict := session.verdicts.get(key)) is not None and verdict.status is Status.PASS
    ]
    failed = set()
    for topology in {topology for topology, _ in passed}:
        verdict = session.topology_verdicts.get(topology) or judge.judge_topology(topology, tonight)
        if verdict is not None and verdict.status in NOT_PASSED:
            failed.add(topology)
    for key in passed:
        if key[0] not in failed and judge.may_join(key):
            yield session.cells[key]


def _join(session: Session, cells: Sequence[Cell]) -> None:
    """Add tonight's runs of *cells* to the baseline's file."""
    joining = {}
    for cell in cells:
        key = (cell.topology, cell.workload.id)
        runs = one_per_start(cell.records)
        night = night_of_runs(runs if session.is_new(key) else runs[:1])
        if night is not None:
            joining[key] = (night, counts_of(runs[0]))
    if joining:
        judge = session.session_judge
        join_night(
            judge.path,
            judge.initial_baseline,
            joining,
            source=source_of(cells[0].records[0]),
            system=session.system,
        )
