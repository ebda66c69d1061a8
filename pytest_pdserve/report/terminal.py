"""What the terminal shows at the end: a table of cells, findings, claims, and where records lie."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.report.claims import claim_lines
from pytest_pdserve.report.names import short_names
from pytest_pdserve.report.nights import night_lines
from pytest_pdserve.report.table import text_table
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.joining import not_recorded
from pytest_pdserve.session.session import Session
from pytest_pdserve.values.metrics import METRICS


def summary_lines(session: Session) -> list[str]:
    """Table of cells, what sanity had to say, claims, and where the records lie."""
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
    lines += _table(rows) if rows else []
    lines += night_lines(session)
    lines += _notes(session)
    lines += claim_lines(session)
    lines += _new_lines(session)
    if not figures:
        lines.append(f"records and logs: {session.store.folder}")
    return lines


def _new_lines(session: Session) -> list[str]:
    """How many cells were new, and where their references are."""
    new = sum(verdict.status is Status.NEW for verdict in session.verdicts.values())
    lines = []
    if new:
        where = not_recorded(session) or f"as reference in {session.session_judge.path}"
        lines.append(f"NEW: {_cells(new)}, recorded {where}")
    if waiting := session.waiting - session.verdicts.keys():
        lines.append(
            f"not judged: {_cells(len(waiting))} without a reference, measured on fewer than "
            f"{session.settings.first_runs} starts when the session ended"
        )
    return lines


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count > 1 else ''}"


def _table(rows: Sequence[tuple[Cell, str]]) -> list[str]:
    columns = METRICS.shown
    names = short_names([cell.workload for cell, _ in rows])
    texts = []
    for cell, verdict in rows:
        values = [cell.value(column.name) for column in columns]
        numbers = ("-" if value is None else f"{value:.1f}" for value in values)
        texts.append((cell.topology, names.of(cell.workload), *numbers, verdict))
    labels = [f"{column.heading}\n{column.unit}" for column in columns]
    align = f"ll{'r' * len(labels)}l"
    return [
        *([f"all workloads: {names.shared}"] if names.shared else []),
        *text_table(("topology", "workload", *labels, "verdict"), texts, align),
    ]


def _notes(session: Session) -> list[str]:
    said: dict[str, list[str]] = {}
    cells = (*session.cells.values(), *session.invalid.values())
    names = short_names([cell.workload for cell in cells])
    for cell in cells:
        for record in cell.records:
            for finding in record.findings:
                if finding.severity != "invalid":
                    where = f"{cell.topology} {names.of(cell.workload)}"
                    said.setdefault(f"{finding.severity}: {finding.message}", []).append(where)
    return [f"{text} [{', '.join(dict.fromkeys(cells))}]" for text, cells in said.items()]
