"""The output of ``pdserve calibrate --client``."""

from __future__ import annotations

from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.client_offsets import ClientOffsets


def offset_lines(found: ClientOffsets) -> list[str]:
    """Return a table of what a client reports in excess, ms, by requests in flight."""
    names = tuple(dict.fromkeys(name for row in found.rows for name in row.off_ms))
    rows = [
        (f"{row.streams:,}", *(_signed(row.off_ms.get(name)) for name in names))
        for row in found.rows
    ]
    version = f" ({found.version})" if found.version else ""
    return [
        f"client {found.client}{version} reports, ms more than is true:",
        *text_table(("streams", *names), rows, "r" * (len(names) + 1)),
    ]


def _signed(off_ms: float | None) -> str:
    return "-" if off_ms is None else f"{off_ms + 0.0:+.2f}"  # no -0.00
