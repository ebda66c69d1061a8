"""CPU time of a node between two looks: whose it was, and what the hypervisor took."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import convert

from pytest_pdserve.backends.hosts.node_load import NodeSample
from pytest_pdserve.backends.hosts.node_load import Used
from pytest_pdserve.backends.hosts.node_load import load_between
from pytest_pdserve.backends.hosts.node_load import sample_node
from pytest_pdserve.values.record import NodeLoad

CORES = os.cpu_count() or 1
SECONDS = 10
TICKS = 100
"""A second of one core."""


def used(ticks: int, *, parent: int = 1, group: int = 0, started: int = 5) -> Used:
    return Used(name="worker", parent=parent, group=group, started=started, ticks=ticks)


def between(
    before: Mapping[int, Used], after: Mapping[int, Used], *, busy: int = 10**6, steal: int = 0
) -> NodeLoad:
    first = NodeSample(at=0.0, busy=0, steal=0, total=0, processes=before)
    total = SECONDS * TICKS * CORES
    last = NodeSample(at=SECONDS, busy=busy, steal=steal, total=total, processes=after)
    load = load_between(first, last, roots={10}, groups={20})
    assert load is not None
    return convert(load, NodeLoad)


@pytest.mark.parametrize(
    ("before", "after", "cores"),
    [
        ({}, {50: used(500)}, 0.5),  # began meanwhile
        ({50: used(9000)}, {50: used(9500)}, 0.5),
        ({50: used(9000, started=1)}, {50: used(500)}, 0.5),  # another one, of the same id
        ({50: used(100)}, {}, 0.0),
        ({10: used(0)}, {10: used(1000)}, 0.0),  # our own
        ({}, {10: used(0), 11: used(500, parent=10), 12: used(500, parent=11)}, 0.0),
        ({}, {50: used(700, group=20)}, 0.0),
        ({}, {50: used(700, parent=51), 51: used(0, parent=50)}, 0.7),  # torn in between
        # A child that ended has left all of its CPU time to its parent.
        ({1: used(0), 50: used(9000)}, {1: used(9500)}, 0.5),
        ({1: used(0), 50: used(9000)}, {1: used(0)}, 0.0),
    ],
)
def test_cores_that_others_used(
    before: Mapping[int, Used], after: Mapping[int, Used], cores: float
) -> None:
    load = between(before, after)
    assert load.other_cores == cores
    assert len(load.other_processes) == (cores > 0)


def test_the_busiest_are_named_and_no_more_is_said_than_was_used() -> None:
    after = {n: used(n) for n in (3, 400, 500, 600, 700)}
    load = between({}, after, busy=1000)
    assert load.other_processes == ("worker[700] 0.70", "worker[600] 0.60", "worker[500] 0.50")
    assert load.other_cores == load.busy_cores == 1.0


def test_steal_is_a_share_of_all_cores() -> None:
    assert between({}, {}, steal=SECONDS * TICKS * CORES // 4).steal == 0.25


def test_without_two_looks_nothing_is_known() -> None:
    seen = sample_node()
    assert seen is not None
    assert load_between(None, seen, roots={1}) is None
    assert load_between(seen, None, roots={1}) is None
    assert load_between(seen, seen, roots={1}) is None


def test_of_containers_only_the_node_as_a_whole_is_known() -> None:
    first = NodeSample(at=0.0, busy=0, steal=0, total=0, processes={})
    last = replace(first, at=1.0, busy=50, total=100, processes={50: used(50)})
    load = load_between(first, last, roots=None)
    assert load is not None
    assert convert(load, NodeLoad).other_cores is None


@pytest.mark.parametrize("stat", ["", "cpu 1 2\n", "cpu a b c d e f g h\n"])
def test_a_kernel_that_does_not_tell(stat: str, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(stat)
    assert sample_node(tmp_path) is None
    assert sample_node(tmp_path / "absent") is None
