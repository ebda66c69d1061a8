"""Find the entries of expected.toml that are about a verdict."""

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
    """Return a function that finds the entries about a verdict, even partial ones.

    :raises ConfigError: if expected.toml is malformed.
    """
    path = expected_path(system, rootdir)
    changes = ExpectedChanges(
        entries=load_expected(path),
        source=str(path),
        today=datetime.now(UTC).date().isoformat(),
    )

    def about(verdict: VerdictReport) -> Sequence[str]:
        found = [entry for entry in _entries(verdict, system, changes) if entry is not None]
        return tuple(dict.fromkeys(f"{_words(entry)} ({path})" for entry in found))

    return about


def _entries(
    verdict: VerdictReport, system: System, changes: ExpectedChanges
) -> Sequence[ExpectedChange | None]:
    if verdict.kind == "claim":
        return [entry for entry in changes.entries if verdict.name in (entry.claims or ())]
    if verdict.kind not in ("cell", "topology"):
        return ()
    points = [each for each in system.sweep.points() if each.workload.id == verdict.workload]
    names = (verdict.workload, *(point.name for point in points)) if verdict.workload else ()
    covers = changes.covers_for_cell(verdict.topologies[0], names)
    return [covers(each.metric, 0.0) for each in verdict.metrics if each.judged]


def _words(entry: ExpectedChange) -> str:
    limit = f", up to {100 * entry.max_worse:g} % worse" if entry.max_worse is not None else ""
    return f"Expected until {entry.until}{limit}: {entry.reason}, set by {entry.owner}"
