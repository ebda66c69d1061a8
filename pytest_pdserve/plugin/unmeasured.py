"""Cells of the baseline that no test measures any more: a sweep that lost cells is not green."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

PANELS = "pdserve_panels"
"""Marker of sweep tests; both panels together are the whole sweep."""
Key = tuple[str, str]
"""Topology and workload id."""
collected_key = pytest.StashKey[set[Key]]()
"""Cells that a test was collected for."""


def remember_collected_cells(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Keep the cells that have a test, unless only a part of a suite was selected."""
    option = config.option
    parts = (option.keyword, option.markexpr, getattr(option, "deselect", None))
    again = [getattr(option, name, False) for name in ("lf", "stepwise")]
    panels = {name for item in items for mark in item.iter_markers(PANELS) for name in mark.args}
    if len(panels) < 2:  # not the whole sweep
        return
    if any(parts) or any(again) or any("::" in word for word in config.args):
        return
    config.stash[collected_key] = {key for item in items if (key := _cell(item)) is not None}


def _cell(item: pytest.Item) -> Key | None:
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    if "pdserve_restartable" not in params or "pdserve_workload" not in params:
        return None
    return params["pdserve_restartable"].id, params["pdserve_workload"].id


def unmeasured_cells(config: pytest.Config, session: Session) -> tuple[Key, ...]:
    """Return the cells of the baseline that have no test, of topologies that were measured."""
    collected = config.stash.get(collected_key, set())
    measured = {topology for topology, _ in (*session.cells, *session.invalid)}
    if not collected or not measured:  # nothing else asks for a baseline then, which may be refused
        return ()
    baseline = session.session_judge.shared
    if baseline is None:
        return ()
    return tuple(key for key in baseline.keys if key[0] in measured and key not in collected)
