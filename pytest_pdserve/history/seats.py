"""Names, roles and nodes of the instances of a run, as one text column."""

from __future__ import annotations

import json

from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import ServedCounts


def seats_text(record: Record) -> str:
    """Return name, role and node of each instance of a run as JSON; empty if it has none."""
    nodes = {process.name: process.node for process in record.processes}
    seats = [
        [each.name, each.role, nodes[each.name]] for each in record.served if each.name in nodes
    ]
    return json.dumps(seats) if seats else ""


def instances_of(text: str) -> tuple[tuple[ServedCounts, ...], tuple[ProcessRecord, ...]]:
    """Return the instances and processes that :func:`seats_text` names, without counts."""
    seats = json.loads(text) if text else []
    served = tuple(ServedCounts(name=name, role=role) for name, role, _ in seats)
    processes = tuple(
        ProcessRecord(name=name, node=node, argv=("unknown",), env={}, log="")
        for name, _, node in seats
    )
    return served, processes
