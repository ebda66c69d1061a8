"""Order of tests: by topology, with tests that judge several cells at the end."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.values.topology import Topology
    from pytest_pdserve.values.workload import Workload

Key = tuple[str, str]
"""Topology and workload id."""
_CELL, _WHOLE_TOPOLOGY, _LAST = range(3)
"""Ranks of tests: cells and other tests, then whole topologies, then tests of all results."""


def topology_of(item: pytest.Item) -> Topology | None:
    """Return the topology that a test runs on; None if it needs none."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("pdserve_topology") if callspec is not None else None


def key_of(item: pytest.Item) -> Key | None:
    """Return the cell that a test measures; None of any other test."""
    from pytest_pdserve.values.workload import Workload

    topology = topology_of(item)
    callspec = getattr(item, "callspec", None)
    workload = callspec.params.get("pdserve_workload") if callspec is not None else None
    # A project's own fixture of that name may have other parameters.
    return (topology.id, workload.id) if topology and isinstance(workload, Workload) else None


def workloads_on(topology: Topology, items: Sequence[pytest.Item]) -> list[Workload]:
    """Return the workloads that tests measure on a topology, in order."""
    from pytest_pdserve.values.workload import Workload

    params = [item.callspec.params for item in items if hasattr(item, "callspec")]
    return [
        each["pdserve_workload"]
        for each in params
        if each.get("pdserve_topology") == topology
        # A parameter of a project's own fixture may be anything.
        and isinstance(each.get("pdserve_workload"), Workload)
    ]


def judges_other_tests(item: pytest.Item) -> bool:
    """Tell whether a test judges what other tests measure."""
    return _rank(item) > _CELL


def is_last(item: pytest.Item) -> bool:
    """Tell whether a test needs the verdicts of all cells and topologies."""
    return _rank(item) == _LAST


def in_order(
    items: Sequence[pytest.Item], together: Mapping[str, object] | None = None
) -> list[pytest.Item]:
    """Sort tests into the order in which they run.

    Tests of a topology follow its first test, so that no topology is deployed twice; otherwise the
    order is kept.

    :param together: group by topology id; tests of one group follow each other.
    """
    together = together or {}
    groups: dict[tuple[int, object], int] = {}
    keys = []
    for place, item in enumerate(items):
        rank, topology = _rank(item), topology_of(item)
        if topology is None:
            keys.append((rank, place, place, place))
            continue
        group = groups.setdefault((rank, together.get(topology.id, topology.id)), place)
        keys.append((rank, group, groups.setdefault((rank, (topology.id,)), place), place))
    return [items[place] for *_, place in sorted(keys)]


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("pdserve_last") is None:
        return _CELL
    judges_topology = "pdserve_judge_topology" in getattr(item, "fixturenames", ())
    return _WHOLE_TOPOLOGY if judges_topology else _LAST
