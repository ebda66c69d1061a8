"""Instances on nodes, as the article's launcher puts them."""

from __future__ import annotations

import pytest

from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.placement import rotated
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.topology import Topology

NODES = ("n0", "n1", "n2", "n3")


def placed(text: str, nodes: tuple[str, ...] = NODES, gpus: int = 8) -> Placement:
    return place(Topology.parse(text), nodes, gpus)


@pytest.mark.parametrize(
    ("topology", "instances"),
    [
        (
            "dp",
            [
                "aggregated[0] n0",
                "aggregated[0]/rank1 n1",
                "aggregated[0]/rank2 n2",
                "aggregated[0]/rank3 n3",
            ],
        ),
        (
            "route2",
            [
                "aggregated[0] n0",
                "aggregated[0]/rank1 n1",
                "aggregated[1] n2",
                "aggregated[1]/rank1 n3",
            ],
        ),
        (
            "route4",
            ["aggregated[0] n0", "aggregated[1] n1", "aggregated[2] n2", "aggregated[3] n3"],
        ),
        ("1p3d", ["prefill[0] n0", "decode[0] n1", "decode[1] n2", "decode[2] n3"]),
        ("2p2d", ["prefill[0] n0", "prefill[1] n1", "decode[0] n2", "decode[1] n3"]),
        ("2x1p1d", ["prefill[0] n0", "decode[0] n1", "prefill[1] n2", "decode[1] n3"]),
        ("1p1d", ["prefill[0] n0", "decode[0] n1"]),
    ],
)
def test_instances_take_nodes_in_order(topology: str, instances: list[str]) -> None:
    assert [f"{i.name} {i.node}" for i in placed(topology).instances] == instances


@pytest.mark.parametrize(
    ("topology", "dp_size", "dp_local", "starts"),
    [
        ("dp", 4, 1, [0, 1, 2, 3]),
        ("dp-tp4", 8, 2, [0, 2, 4, 6]),
        ("route2", 2, 1, [0, 1, 0, 1]),
        ("route4", 1, 1, [0, 0, 0, 0]),
        ("route4-tp2", 4, 4, [0, 0, 0, 0]),
        ("2p2d-tp4", 2, 2, [0, 0, 0, 0]),
    ],
)
def test_engines_are_nodes_times_gpus_over_tp(
    topology: str, dp_size: int, dp_local: int, starts: list[int]
) -> None:
    instances = placed(topology).instances
    assert {i.dp_size for i in instances} == {dp_size}
    assert {i.dp_local for i in instances} == {dp_local}
    assert [i.dp_start for i in instances] == starts


def test_roles_may_have_tensor_parallel_sizes_of_their_own() -> None:
    placement = placed("1p3d-tp4x8")
    assert [(i.tp, i.dp_local) for i in placement.instances] == [(4, 2), (8, 1), (8, 1), (8, 1)]


def test_a_system_may_say_the_tensor_parallel_size() -> None:
    placement = place(Topology.parse("dp"), NODES, 8, default_tp=2)
    assert {i.tp for i in placement.instances} == {2}


@pytest.mark.parametrize(
    ("topology", "endpoints", "routed"),
    [
        ("dp", ["aggregated[0]"], False),
        ("route2", ["aggregated[0]", "aggregated[1]"], True),
        ("1p1d", ["prefill[0]", "decode[0]"], True),
    ],
)
def test_headless_ranks_answer_nothing_and_one_group_needs_no_router(
    topology: str, endpoints: list[str], routed: bool
) -> None:
    placement = placed(topology)
    assert [i.name for i in placement.endpoints] == endpoints
    assert placement.routed is routed
    assert placement.head == "n0"


def test_nodes_that_are_not_needed_are_left_out() -> None:
    assert placed("1p1d").nodes == ("n0", "n1")


@pytest.mark.parametrize(
    ("places", "nodes"),
    [(0, ("n0", "n1", "n2")), (1, ("n1", "n2", "n0")), (5, ("n2", "n0", "n1"))],
)
def test_rotated_nodes_begin_some_places_later(places: int, nodes: tuple[str, ...]) -> None:
    assert rotated(("n0", "n1", "n2"), places) == nodes


@pytest.mark.parametrize(
    ("topology", "sentence"),
    [
        (
            "route3",
            "topology 'route3' needs a number of nodes that 3 groups divide, but the system has 4",
        ),
        (
            "route8",
            "topology 'route8' needs a number of nodes that 8 groups divide, but the system has 4",
        ),
        (
            "2x2p1d",
            "topology '2x2p1d' needs 6 nodes (2 x (2 prefill + 1 decode)), but the system has 4",
        ),
        (
            "dp-tp3",
            "topology 'dp-tp3': tensor-parallel size 3 does not divide the 8 GPUs of a node",
        ),
        (
            "1p3d-tp8x16",
            "topology '1p3d-tp8x16' asks for tensor-parallel size 16, but a node has 8 GPUs",
        ),
    ],
)
def test_what_does_not_fit_says_both_numbers(topology: str, sentence: str) -> None:
    with pytest.raises(PlacementError) as refused:
        placed(topology)
    assert str(refused.value) == sentence
