"""Find cells of the baseline that no test measures any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.plugin.ordering import Key
from pytest_pdserve.plugin.ordering import key_of
from pytest_pdserve.plugin.ordering import topology_of

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

PANELS = "pdserve_panels"
"""Marker of sweep tests; both panels together are the whole sweep."""
collected_key = pytest.StashKey[set[Key]]()
"""Cells with a collected test."""
deselected_key = pytest.StashKey[bool]()
"""Set if tests of topologies were deselected, by ``-k``, ``--lf`` or any plugin."""


def remember_deselected_tests(items: Sequence[pytest.Item]) -> None:
    """Remember that tests of topologies are left out on purpose."""
    for item in items:
        if topology_of(item) is not None:
            item.config.stash[deselected_key] = True


def remember_collected_cells(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Remember the cells with a test, unless only a part of a suite was selected."""
    panels = {name for item in items for mark in item.iter_markers(PANELS) for name in mark.args}
    if len(panels) < 2:  # not the whole sweep
        return
    # --lf leaves out whole files too, without calling a hook
    if deselected_key in config.stash or config.getoption("lf", default=False):
        return
    if any("::" in word for word in config.args):
        return
    config.stash[collected_key] = {key for item in items if (key := key_of(item)) is not None}


def unmeasured_cells(config: pytest.Config, session: Session) -> tuple[Key, ...]:
    """Return the cells of the baseline without a test, of topologies that were measured."""
    collected = config.stash.get(collected_key, set())
    measured = {topology for topology, _ in (*session.cells, *session.invalid)}
    if not collected or not measured:  # do not load a baseline that may be invalid without need
        return ()
    baseline = session.session_judge.shared
    if baseline is None:
        return ()
    return tuple(key for key in baseline.keys if key[0] in measured and key not in collected)
