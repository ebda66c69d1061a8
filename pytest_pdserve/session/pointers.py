"""What a verdict says of a cell beside its metrics: where to look, and how to run it again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_pdserve.session.cell import Cell

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

_SELECTABLE = re.compile(r"[\w.+:/-]+")
"""What an expression of pytest's ``-k`` may hold as a name."""


def pointers(session: Session, cell: Cell) -> tuple[tuple[str, str], ...]:
    """Return notes of a cell, its records, and the commands that run it again and accept it."""
    notes = {f.message for record in cell.records for f in record.findings if f.is_note}
    name = session.system.name
    known = {point.id: point.test_id for point in session.system.sweep.points()}
    short = known.get(cell.workload.id, cell.workload.id)
    only = f' -k "{cell.topology} and {short}"' if _SELECTABLE.fullmatch(short) else ""
    again = f"pytest suites/sweep --topology {cell.topology} --system {name}{only}"
    return (
        *(("note", note) for note in sorted(notes)),
        *(("record", str(path)) for path in cell.paths),
        ("rerun", again),
        ("accept", session.session_judge.how_to_accept),
    )
