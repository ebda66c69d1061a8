"""Tables of text, as the terminal and the commands show them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from collections.abc import Sequence

_WIDE = 1000


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> list[str]:
    """Return the lines of a table without colour, as wide as its texts: nothing is cut.

    :param columns: headings, which may have line breaks.
    :param align: ``l`` or ``r`` for each column.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for label, side in zip(columns, align, strict=True):
        table.add_column(label, justify="left" if side == "l" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=_WIDE, color_system=None, markup=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]
