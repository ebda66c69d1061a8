"""The summary in the terminal: a table of cells, findings, claims, and the records' folder."""

from __future__ import annotations

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.report.cells import cell_table
from pytest_pdserve.report.cells import finding_lines
from pytest_pdserve.report.claims import claim_lines
from pytest_pdserve.report.nights import night_lines
from pytest_pdserve.report.phases import phase_line
from pytest_pdserve.session.joining import not_recorded
from pytest_pdserve.session.joining import other_clients
from pytest_pdserve.session.session import Session


def summary_lines(session: Session) -> list[str]:
    """Return the table of cells, findings, claims, and the folder of the records."""
    rows = [
        (cell, str(session.verdicts[key].status) if key in session.verdicts else "measured")
        for key, cell in session.cells.items()
    ]
    rows += [(cell, "ERROR") for cell in session.invalid.values()]
    if not rows and not session.claims and not session.topology_verdicts:
        return []
    figures, lines = session.system.figures is not None, []
    if figures:
        lines = [f"FIGURES, nothing was measured: {session.system.description}"]
    elif session.system.simulated:
        lines = [f"SIMULATED, no server ran: {session.system.description}"]
    lines += cell_table(rows) if rows else []
    lines += night_lines(session)
    cells = (*session.cells.values(), *session.invalid.values())
    lines += finding_lines(cells, severities=("unproven", "note"))
    lines += claim_lines(session)
    lines += new_lines(session)
    if not session.system.simulated and not figures:
        lines.append(phase_line(session.phases.times))
    if not figures:
        lines.append(f"records and logs: {session.store.folder}")
    return lines


def new_lines(session: Session) -> list[str]:
    """Return how many cells were new, where their references are, and how many still wait."""
    keys = [key for key, verdict in session.verdicts.items() if verdict.status is Status.NEW]
    new = len(keys)
    lines = []
    if new:
        where = not_recorded(session) or f"as reference in {session.session_judge.path}"
        lines.append(f"NEW: {_cells(new)}, recorded {where}")
        if others := other_clients(session, keys):
            lines.append(f"client {others}")
    if waiting := session.waiting - session.verdicts.keys():
        lines.append(
            f"not judged: {_cells(len(waiting))} without a reference, measured on fewer than "
            f"{session.settings.first_runs} starts when the session ended"
        )
    return lines


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count > 1 else ''}"
