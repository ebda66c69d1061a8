"""Cells of the baseline that a session measures no more: a sweep that lost cells is not green."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

Key = tuple[str, str]
"""Topology and workload id."""
collected_key = pytest.StashKey[set[Key]]()
"""Cells that a test was collected for."""


def remember_cells(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Keep the cells that tests were collected for, where the whole of a suite was asked for."""
    option = config.option
    parts = (option.keyword, option.markexpr, getattr(option, "deselect", None))
    again = [getattr(option, name, False) for name in ("lf", "stepwise")]
    if any(parts) or any(again) or any("::" in word for word in config.args):
        return
    config.stash[collected_key] = {key for item in items if (key := _cell(item)) is not None}


def _cell(item: pytest.Item) -> Key | None:
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    if "pdserve_restartable" not in params or "pdserve_workload" not in params:
        return None
    return params["pdserve_restartable"].id, params["pdserve_workload"].id


def vanished_cells(config: pytest.Config, session: Session) -> tuple[Key, ...]:
    """Return cells of the baseline on topologies that were measured, and that no test is for."""
    collected = config.stash.get(collected_key, set())
    baseline = session.session_judge.baseline if collected and not session.system.figures else None
    if baseline is None:
        return ()
    measured = {topology for topology, _ in (*session.cells, *session.invalid)}
    return tuple(key for key in baseline.keys if key[0] in measured and key not in collected)
