"""Order of tests: those of a topology together, and what looks at several cells after them."""

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
"""Cells and all other tests first, then topologies as a whole, then what looks at all of them."""


def topology_of(item: pytest.Item) -> Topology | None:
    """Return the topology that a test runs on, or None of a test that needs none."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("pdserve_topology") if callspec is not None else None


def key_of(item: pytest.Item) -> Key | None:
    """Return the cell that a test measures; None of any other test."""
    from pytest_pdserve.values.workload import Workload

    topology = topology_of(item)
    callspec = getattr(item, "callspec", None)
    workload = callspec.params.get("pdserve_workload") if callspec is not None else None
    # A project's own fixture of that name may have parameters of its own
    return (topology.id, workload.id) if topology and isinstance(workload, Workload) else None


def workloads_on(topology: Topology, items: Sequence[pytest.Item]) -> list[Workload]:
    """Return the workloads that tests measure on a topology, in their order."""
    from pytest_pdserve.values.workload import Workload

    params = [item.callspec.params for item in items if hasattr(item, "callspec")]
    return [
        each["pdserve_workload"]
        for each in params
        if each.get("pdserve_topology") == topology
        # A parameter of a project's own fixture may be anything.
        and isinstance(each.get("pdserve_workload"), Workload)
    ]


def looks_at_others(item: pytest.Item) -> bool:
    """Return whether a test looks at what other tests measure."""
    return _rank(item) > _CELL


def is_last(item: pytest.Item) -> bool:
    """Return whether a test looks at the verdicts of all cells and topologies."""
    return _rank(item) == _LAST


def in_order(
    items: Sequence[pytest.Item], together: Mapping[str, object] | None = None
) -> list[pytest.Item]:
    """Return tests in the order in which they run.

    Tests of a topology stay where its first one is, so that no topology is stood up twice;
    otherwise the order is kept.

    :param together: by topology id, the same for topologies whose tests follow each other.
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
