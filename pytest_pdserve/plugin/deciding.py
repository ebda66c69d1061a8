"""Sessions with a deadline: the most urgent tests run first, and late ones are left out."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.plugin.ordering import Key
from pytest_pdserve.plugin.ordering import judges_other_tests
from pytest_pdserve.plugin.ordering import key_of
from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.postponing import times_key

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

Urgency = tuple[bool, str]
"""Sort key of a cell: whether it was not suspicious last night, and when it was last measured."""
MAX_SESSIONS = 60
"""Maximum number of earlier sessions that are read."""
_UNSETTLED = ("FAIL", "SUSPICIOUS", "ERROR")
"""Verdicts that the next night should settle."""


def most_urgent_first(items: Sequence[pytest.Item], runs: Path, system: str) -> list[pytest.Item]:
    """Sort tests: cells that were suspicious last night first, then the oldest cells.

    A test of a topology without a cell, such as a smoke test, comes before the most urgent cell of
    its topology. All others keep their order.
    """
    keys = {key for item in items if (key := key_of(item)) is not None}
    urgency = urgencies(keys, runs, system)
    best: dict[str, Urgency] = {}
    for (topology, _), each in urgency.items():
        best[topology] = min(each, best.get(topology, each))

    def rank(item: pytest.Item) -> tuple[Urgency, bool]:
        key, topology = key_of(item), topology_of(item)
        if key is not None:
            return urgency[key], True
        return best.get(topology.id if topology else "", (False, "")), False

    return sorted(items, key=rank)


def urgencies(keys: set[Key], runs: Path, system: str) -> Mapping[Key, Urgency]:
    """Return the urgency of cells, from earlier sessions in *runs*."""
    from pytest_pdserve.results.history import session_folders
    from pytest_pdserve.results.store import load_report
    from pytest_pdserve.values.errors import ConfigError

    found: dict[Key, Urgency] = {}
    folders = [each for each in session_folders(runs) if each[1].system == system]
    for folder, ref in folders[:MAX_SESSIONS]:
        if not keys - found.keys():
            break
        try:
            report = load_report(folder)
        except ConfigError:  # use an earlier session
            continue
        for verdict in report.verdicts if report is not None else ():
            key = (verdict.topologies[0], verdict.workload or "") if verdict.topologies else None
            if verdict.kind == "cell" and key in keys - found.keys():
                found[key] = (verdict.status not in _UNSETTLED, ref.session.started_at or "")
    return {key: found.get(key, (True, "")) for key in keys}


def skip_if_late(item: pytest.Item, session: Session | None) -> None:
    """Skip a test that would start servers or a run when no time is left."""
    if session is None or session.deadline.has_time_for() or judges_other_tests(item):
        return
    key, deadline = key_of(item), session.deadline
    if item.stash.get(times_key, 0) or key in session.cells:  # it is judged by its earlier runs
        return
    name = " ".join(key) if key is not None else item.nodeid
    deadline.left_out.append(name)
    pytest.skip(f"left out: the session must end by {deadline}")


def late_lines(session: Session | None) -> list[str]:
    """Return the summary lines about tests that were left out."""
    if session is None or not session.deadline.left_out:
        return []
    names = ", ".join(dict.fromkeys(session.deadline.left_out))
    return [f"left out, as the session must end by {session.deadline}: {names}"]
