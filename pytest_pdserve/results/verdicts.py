"""What a session said of its cells, read from its own report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_pdserve.results.store import load_report
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.report import Report

Key = tuple[str, str]
"""Topology and workload id."""
TOPOLOGY_FAIL = "TOPOLOGY FAIL"
"""Verdict of a cell that did not FAIL itself, of a topology that FAILed as a whole."""
FAILED = ("FAIL", TOPOLOGY_FAIL)
"""Verdicts with which the night of a cell is not normal."""


def verdicts_of(report: Report) -> dict[Key, str]:
    """Return the verdict of each cell of a report."""
    failed = {
        said.topologies[0]
        for said in report.verdicts
        if said.kind == "topology" and said.status == "FAIL"
    }
    found: dict[Key, str] = {}
    for said in report.verdicts:
        if said.kind == "cell" and said.workload is not None:
            topology = said.topologies[0]
            spoiled = topology in failed and said.status != "FAIL"
            found[topology, said.workload] = TOPOLOGY_FAIL if spoiled else said.status
    return found


def session_verdicts(folder: Path, unreadable: list[str]) -> Mapping[Key, str] | None:
    """Return the verdict of each cell of a session; None where its run folder does not say them.

    :param unreadable: gets a sentence if its report cannot be read.
    """
    try:
        report = load_report(folder)
    except ConfigError as error:
        unreadable.append(str(error))
        return None
    return verdicts_of(report) if report is not None and report.ended else None
