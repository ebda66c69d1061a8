"""Prerequisites of a session, found and missing, as a table or as JSON."""

from __future__ import annotations

import io
from collections.abc import Sequence

from pytest_pdserve.values.prerequisites import Prerequisite

_WIDEST = 120
_STATUS = 11
_WHAT = 21
_GAP = 2


def prerequisites_table(rows: Sequence[Prerequisite], width: int) -> list[str]:
    """Return the lines of a table that is at most *width* characters wide.

    What to do about a row stands below it, indented.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    width = min(width, _WIDEST)
    rest = width - _WHAT - _STATUS - 3 * _GAP
    widths = (_STATUS, _WHAT, rest - rest * 2 // 5, rest * 2 // 5)
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)

    def line(*cells: str) -> Table:
        made = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
        for each in widths:
            made.add_column(width=each, overflow="fold")
        made.add_row(*cells)
        return made

    with console.capture() as capture:
        console.print(line("status", "what", "found", "needed"))
        console.print("─" * width)
        for row in rows:
            status = "" if row.status == "not needed" else row.status
            console.print(line(status, row.what, row.found, row.needed))
            if row.advice:
                console.print(Padding(row.advice, (0, 0, 0, _STATUS + _GAP)))
    return [text.rstrip() for text in capture.get().splitlines() if text.strip()]


def prerequisites_json(system: str, rows: Sequence[Prerequisite]) -> str:
    """Return the rows as one JSON object, for other programs."""
    import msgspec

    data = {"system": system, "missing": missing(rows), "rows": rows}
    return msgspec.json.format(msgspec.json.encode(data), indent=1).decode()


def missing(rows: Sequence[Prerequisite]) -> list[str]:
    """Return the names of rows that a session cannot do without."""
    return [row.what for row in rows if row.status == "missing"]


def summary_line(system: str, rows: Sequence[Prerequisite]) -> str:
    """Return one sentence on whether sessions of *system* can start."""
    if lacking := missing(rows):
        return f"{len(lacking)} missing for system {system}: {', '.join(lacking)}"
    return f"Nothing is missing for system {system}."
