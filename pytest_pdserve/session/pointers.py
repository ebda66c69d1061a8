"""Evidence lines of a cell's verdict: notes, records, and commands to rerun and accept it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_pdserve.session.cell import Cell

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

_SELECTABLE = re.compile(r"[\w.+:/-]+")
"""Names that an expression of pytest's ``-k`` may contain."""


def pointers(session: Session, cell: Cell) -> tuple[tuple[str, str], ...]:
    """Return label and text of each line: notes, records, how to rerun and accept the cell."""
    notes = {f.message for record in cell.records for f in record.findings if f.is_note}
    name = session.system.name
    test_ids = {point.id: point.test_id for point in session.system.sweep.points()}
    short = test_ids.get(cell.workload.id, cell.workload.id)
    only = f' -k "{cell.topology} and {short}"' if _SELECTABLE.fullmatch(short) else ""
    again = f"pytest suites/sweep --topology {cell.topology} --system {name}{only}"
    return (
        *(("note", note) for note in sorted(notes)),
        *(("record", str(path)) for path in cell.paths),
        ("rerun", again),
        ("accept", session.session_judge.how_to_accept),
    )
