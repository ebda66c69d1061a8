"""What the judgement of nights adds to the terminal's summary."""

from __future__ import annotations

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.session import Session


def night_lines(session: Session) -> list[str]:
    """What was seen at all: nights and runs; then every verdict that is no PASS, by a line."""
    if not session.nightly:
        return []
    cells = [cell for key, cell in session.cells.items() if session.nightly.knows(key)]
    runs = sum(len(cell.records) for cell in cells)
    history = session.history
    before = len(history.nights) if history else 0
    known = "calibrated" if session.calibration else "assumed, see pdserve calibrate"
    lines = [
        f"judged by nights: {len(cells)} cells in {runs} runs, {before} nights before; "
        f"ICC {session.nightly.rules.icc:.2g} ({known})"
    ]
    for (topology, workload), verdict in session.verdicts.items():
        if verdict.status is Status.INCONCLUSIVE:
            lines.append(f"inconclusive: {topology} {workload}: {_first(verdict)}")
    for topology, verdict in session.wholes.items():
        said = _first(verdict) if verdict.misses else ""
        lines.append(f"{topology} over all cells: {verdict.status}" + (f": {said}" if said else ""))
    for why in history.unreadable if history else ():
        lines.append(f"left out of the nights before: {why}")
    return lines


def _first(verdict: Verdict) -> str:
    more = len(verdict.misses) - 1
    return verdict.misses[0] + (f" (and {more} more)" if more else "")
