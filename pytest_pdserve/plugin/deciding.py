"""Sessions with a deadline: the tests that decide most come first, and late ones are left out."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.plugin.ordering import Key
from pytest_pdserve.plugin.ordering import key_of
from pytest_pdserve.plugin.ordering import looks_at_others
from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.putting_off import times_key

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

Urgency = tuple[bool, str]
"""Whether a cell was not suspicious last night, and when it was last measured; what comes first is
measured first."""
FARTHEST = 60
"""Sessions that are looked back at."""
_OPEN = ("FAIL", "SUSPICIOUS", "ERROR")
"""Outcomes that the next night settles."""


def deciding_first(items: Sequence[pytest.Item], runs: Path, system: str) -> list[pytest.Item]:
    """Return tests with those first whose cells were suspicious last night, then the oldest cells.

    A test of a topology that measures no cell, such as a smoke test, is as urgent as the most
    urgent cell of its topology, and stands before it. All others stay in their order.
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
    """Return how urgent cells are, by what earlier sessions in *runs* say of them."""
    from pytest_pdserve.results.history import session_folders
    from pytest_pdserve.results.store import load_report
    from pytest_pdserve.values.errors import ConfigError

    found: dict[Key, Urgency] = {}
    folders = [each for each in session_folders(runs) if each[1].system == system]
    for folder, said in folders[:FARTHEST]:
        if not keys - found.keys():
            break
        try:
            report = load_report(folder)
        except ConfigError:  # the session before tells
            continue
        for verdict in report.verdicts if report is not None else ():
            key = (verdict.topologies[0], verdict.workload or "") if verdict.topologies else None
            if verdict.kind == "cell" and key in keys - found.keys():
                found[key] = (verdict.status not in _OPEN, said.session.started_at or "")
    return {key: found.get(key, (True, "")) for key in keys}


def skip_what_is_late(item: pytest.Item, session: Session | None) -> None:
    """Skip a test that would start servers or a run for which there is no time left."""
    if session is None or session.deadline.leaves() or looks_at_others(item):
        return
    key, deadline = key_of(item), session.deadline
    if item.stash.get(times_key, 0) or key in session.cells:  # it is judged by what has run
        return
    name = " ".join(key) if key is not None else item.nodeid
    deadline.left_out.append(name)
    pytest.skip(f"left out: the session must end by {deadline}")


def late_lines(session: Session | None) -> list[str]:
    """Return what the summary says of tests that were left out."""
    if session is None or not session.deadline.left_out:
        return []
    names = ", ".join(dict.fromkeys(session.deadline.left_out))
    return [f"left out, as the session must end by {session.deadline}: {names}"]
