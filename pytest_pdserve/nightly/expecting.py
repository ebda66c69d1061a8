"""The entries of expected.toml that are about a verdict, and who set them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.nightly.observations import Expected
from pytest_pdserve.results.expected import expected_path
from pytest_pdserve.results.expected import load_expected
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.system import System


def expected_by(system: System, rootdir: Path) -> Expected:
    """Return what finds the entries about a verdict, also those that do not cover all of it.

    :raises ConfigError: if expected.toml is malformed.
    """
    path = expected_path(system, rootdir)
    changes = ExpectedChanges(
        entries=load_expected(path),
        source=str(path),
        today=datetime.now(UTC).date().isoformat(),
    )

    def about(said: VerdictReport) -> Sequence[str]:
        found = [entry for entry in _entries(said, system, changes) if entry is not None]
        return tuple(dict.fromkeys(f"{_words(entry)} ({path})" for entry in found))

    return about


def _entries(
    said: VerdictReport, system: System, changes: ExpectedChanges
) -> Sequence[ExpectedChange | None]:
    if said.kind == "claim":
        return [entry for entry in changes.entries if said.name in (entry.claims or ())]
    if said.kind not in ("cell", "topology"):
        return ()
    points = [each for each in system.sweep.points() if each.workload.id == said.workload]
    names = (said.workload, *(point.name for point in points)) if said.workload else ()
    covers = changes.of_cell(said.topologies[0], names)
    return [covers(each.metric, 0.0) for each in said.metrics if each.judged]


def _words(entry: ExpectedChange) -> str:
    least = f", up to {100 * entry.max_worse:g} % worse" if entry.max_worse is not None else ""
    return f"Expected until {entry.until}{least}: {entry.reason}, set by {entry.owner}"
