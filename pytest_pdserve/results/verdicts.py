"""The verdicts of a session on its cells, read from its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_pdserve.results.store import load_report
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.report import Report

Key = tuple[str, str]
"""Topology and workload id."""
TOPOLOGY_FAIL = "TOPOLOGY FAIL"
"""Verdict of a cell that did not FAIL itself, while its topology FAILed as a whole."""
FAILED = ("FAIL", TOPOLOGY_FAIL)
"""Verdicts after which the night of a cell does not join its baseline."""


def verdicts_of(report: Report) -> dict[Key, str]:
    """Return the verdict of each cell of a report."""
    failed = {
        verdict.topologies[0]
        for verdict in report.verdicts
        if verdict.kind == "topology" and verdict.status == "FAIL"
    }
    verdicts: dict[Key, str] = {}
    for verdict in report.verdicts:
        if verdict.kind == "cell" and verdict.workload is not None:
            topology = verdict.topologies[0]
            topology_failed = topology in failed and verdict.status != "FAIL"
            key = (topology, verdict.workload)
            verdicts[key] = TOPOLOGY_FAIL if topology_failed else verdict.status
    return verdicts


def session_verdicts(folder: Path, unreadable: list[str]) -> Mapping[Key, str] | None:
    """Return the verdict of each cell of a session; None if its run folder has none.

    :param unreadable: receives a sentence if the report cannot be read.
    """
    try:
        report = load_report(folder)
    except ConfigError as error:
        unreadable.append(str(error))
        return None
    return verdicts_of(report) if report is not None and report.ended else None
