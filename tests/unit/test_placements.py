"""Whether slow runs have a node in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_pdserve.judge.placements import roles_on_nodes
from pytest_pdserve.judge.placements import slow_node
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record

Place = Callable[[str, str], Record]


@pytest.fixture
def placed(make_record: Callable[..., Record], make_counts: Callable[..., object]) -> Place:
    """A factory of runs by the nodes of their prefill and decode instance."""

    def make(prefill: str, decode: str) -> Record:
        names = {"prefill[0]": prefill, "decode[0]": decode, "router": prefill}
        processes = tuple(
            ProcessRecord(name=name, node=node, argv=("x",), env={}, log="l")
            for name, node in names.items()
        )
        served = (make_counts("prefill[0]"), make_counts("decode[0]"))
        return replace(make_record(), processes=processes, served=served)  # type: ignore[arg-type]

    return make


def test_seats_are_roles_on_nodes_of_instances_only(placed: Place) -> None:
    assert roles_on_nodes(placed("h1", "h2")) == {("prefill", "h1"), ("decode", "h2")}


def test_the_node_that_all_slow_runs_have_in_a_role_is_named(placed: Place) -> None:
    runs = [
        (placed("h1", "h4"), True),
        (placed("h2", "h4"), True),
        (placed("h4", "h1"), False),
        (placed("h1", "h2"), False),
    ]
    assert slow_node(runs) == (
        "All 2 slow runs had h4 as decode, and none of 2 other runs: suspect the node"
    )


def test_no_node_is_named_without_two_slow_runs_and_two_others(placed: Place) -> None:
    slow, other = (placed("h1", "h4"), True), (placed("h4", "h1"), False)
    assert slow_node([slow, other, other]) == ""
    assert slow_node([slow, slow, other]) == ""


def test_no_node_is_named_if_another_run_had_it_too(placed: Place) -> None:
    runs = [(placed("h1", "h4"), True)] * 2 + [(placed("h2", "h4"), False)] * 2
    assert "h4" not in slow_node(runs)


def test_no_node_is_named_if_slow_runs_have_several_in_common(placed: Place) -> None:
    runs = [(placed("h1", "h4"), True)] * 2 + [(placed("h2", "h3"), False)] * 2
    assert slow_node(runs) == ""
