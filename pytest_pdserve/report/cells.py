"""Tables of cells and their findings, for the terminal and ``pdserve show``."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

from pytest_pdserve.report.findings import merged
from pytest_pdserve.report.names import short_names
from pytest_pdserve.report.table import text_table
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Metric
from pytest_pdserve.values.report import FindingReport

_MAX_NAMES = 5
"""Cells that a finding names."""


def cell_table(
    rows: Sequence[tuple[Cell, str]], *, heading: str = "verdict", more: Sequence[Metric] = ()
) -> list[str]:
    """Return a table of cells, with the metrics that have a column, each with its unit.

    :param rows: at least one cell, and its text in the last column.
    :param heading: heading of the last column.
    :param more: further metrics with a column.
    """
    columns = (*METRICS.shown, *more)
    names = short_names([cell.workload for cell, _ in rows])
    texts = []
    for cell, last in rows:
        values = [cell.value(column.name) for column in columns]
        numbers = ("-" if value is None else f"{value:.1f}" for value in values)
        texts.append((cell.topology, names.of(cell.workload), *numbers, last))
    labels = [f"{_heading(column)}\n{column.unit}" for column in columns]
    align = f"ll{'r' * len(labels)}l"
    return [
        *([f"all workloads: {names.shared}"] if names.shared else []),
        *text_table(("topology", "workload", *labels, heading), texts, align),
    ]


def _heading(metric: Metric) -> str:
    return metric.heading or f"{metric.statistic} {(metric.quantity or metric.name).upper()}"


def finding_lines(cells: Iterable[Cell], *, severities: Sequence[str]) -> list[str]:
    """Return the findings of cells, each kind once, with the cells that have it.

    :param severities: of the findings that are returned.
    """
    cells = tuple(cells)
    names = short_names([cell.workload for cell in cells])
    findings = (
        FindingReport(
            severity=finding.severity,
            check=finding.check,
            message=finding.message,
            cells=(f"{cell.topology} {names.of(cell.workload)}",),
        )
        for cell in cells
        for record in cell.records
        for finding in record.findings
        if finding.severity in severities
    )
    return [f"{each.severity}: {each.message} [{_places(each.cells)}]" for each in merged(findings)]


def _places(names: Sequence[str]) -> str:
    """Return the cells of a finding, the first few by name."""
    more = len(names) - _MAX_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MAX_NAMES])} and {more} more"
