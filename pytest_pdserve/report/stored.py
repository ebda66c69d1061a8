"""A stored session as it was measured, without any verdict."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from pytest_pdserve.report.cells import cell_table
from pytest_pdserve.report.cells import finding_lines
from pytest_pdserve.results.history import StoredSession
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Metric
from pytest_pdserve.values.record import Record

SEVERITIES = ("invalid", "unproven", "note")


def stored_lines(session: StoredSession) -> list[str]:
    """Return a table of a session's cells, and their findings, the worst first.

    Runs of one cell are one row, as their medians; invalid runs have a row of their own.
    """
    rows = [(cell, _validity_text(cell)) for cell in _cells(session)]
    cells = [cell for cell, _ in rows]
    findings = (
        line for severity in SEVERITIES for line in finding_lines(cells, severities=(severity,))
    )
    return [
        _title(session),
        *cell_table(rows, heading="validity", more=_further_columns(cells)),
        *findings,
        *(f"unreadable: {why}" for why in session.unreadable),
    ]


def stored_content(session: StoredSession) -> dict[str, Any]:
    """Return what a session measured, for programs.

    Keys: ``run_id``, ``system``, ``simulated``, ``night``, ``started_at`` (null if unknown),
    ``versions``, ``unreadable``; ``units`` of every metric; ``runs``, each with ``topology``,
    ``workload``, ``repeat``, ``start``, ``started_at``, ``validity``, ``metrics``, ``findings``.
    """
    first = session.records[0]
    return {
        "run_id": session.run_id,
        "system": first.system,
        "simulated": first.simulated,
        "night": session.night,
        "started_at": session.session.started_at,
        "versions": dict(first.versions),
        "unreadable": list(session.unreadable),
        "units": {name: row.unit for name, row in METRICS.items()},
        "runs": [_run(record) for record in session.records],
    }


def _further_columns(cells: Sequence[Cell]) -> list[Metric]:
    """Return metrics that the usual columns lack: E2EL, medians in place of means."""

    def is_measured(name: str) -> bool:
        return any(cell.value(name) is not None for cell in cells)

    means = {
        row.quantity for n, row in METRICS.items() if row.statistic == "mean" and is_measured(n)
    }
    return [
        row
        for name, row in METRICS.items()
        if row.quantity and not row.heading and is_measured(name)
        if row.statistic == "mean" or (row.statistic == "p50" and row.quantity not in means)
    ]


def _run(record: Record) -> dict[str, Any]:
    return {
        "topology": record.topology,
        "workload": record.workload.id,
        "repeat": record.repeat,
        "start": record.start,
        "started_at": record.started_at,
        "validity": _validity(record),
        "metrics": {name: record.value(name) for name in record.metrics},
        "findings": [
            {"check": each.check, "severity": each.severity, "message": each.message}
            for each in record.findings
        ],
    }


def _title(session: StoredSession) -> str:
    first = session.records[0]
    when = session.session.started_at or "date unknown"
    versions = [
        f"{name} {version}" for name, version in first.versions.items() if len(version) < 60
    ]
    kind = ["SIMULATED, no server ran"] if first.simulated else []
    return ", ".join([session.run_id, f"system {first.system}", when, *versions, *kind])


def _cells(session: StoredSession) -> Iterator[Cell]:
    found: dict[tuple[str, str, bool], list[Record]] = {}
    for record in session.records:
        key = (record.topology, record.workload.id, bool(record.invalid))
        found.setdefault(key, []).append(record)
    for records in found.values():
        yield Cell(records=tuple(records), paths=())


def _validity_text(cell: Cell) -> str:
    """Return whether the runs of a cell are valid, and how many they are if several."""
    kinds = {_validity(record) for record in cell.records}
    worst = next(kind for kind in ("invalid", "unproven", "valid") if kind in kinds)
    runs = len(cell.records)
    return worst if runs == 1 else f"{worst}, {runs} runs"


def _validity(record: Record) -> str:
    return "invalid" if record.invalid else "unproven" if record.unproven else "valid"
