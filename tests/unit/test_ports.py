"""Ports of a placement."""

from __future__ import annotations

import pytest

from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.ports import InstancePorts
from pytest_pdserve.plan.ports import PortAllocator
from pytest_pdserve.plan.ports import Ports
from pytest_pdserve.plan.ports import assign_ports
from pytest_pdserve.plan.ports import in_memory_claim
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import PortScheme
from pytest_pdserve.values.topology import Topology

NODES = ("n0", "n1", "n2", "n3")
SCHEME = PortScheme(http=8000, side_channel=5600, rpc=13345, span=20)


def assigned(
    topology: str,
    *,
    scheme: PortScheme = SCHEME,
    one_machine: bool = False,
    busy: frozenset[int] = frozenset(),
    gpus: int = 8,
) -> Ports:
    free = in_memory_claim(one_machine=one_machine)
    placement = place(Topology.parse(topology), NODES, gpus)
    return assign_ports(placement, scheme, lambda node, port: port not in busy and free(node, port))


@pytest.mark.parametrize(
    ("topology", "http", "router"),
    [
        ("dp", [8000, None, None, None], None),
        ("route2", [8000, None, 8001, None], 8002),
        ("route4", [8000, 8001, 8002, 8003], 8004),
        ("1p3d", [8000, 8001, 8002, 8003], 8001),
        ("2x1p1d", [8000, 8001, 8002, 8003], 8002),
    ],
)
def test_ports_on_nodes_are_the_launchers(
    topology: str, http: list[int | None], router: int | None
) -> None:
    ports = assigned(topology)
    assert [p.http for p in ports.instances.values()] == http
    assert ports.router == router


def test_every_rank_of_a_group_knows_the_heads_rpc_port() -> None:
    ports = assigned("route2")
    assert [p.rpc for p in ports.instances.values()] == [13345, 13345, 13346, 13346]
    assert [p.rpc for p in assigned("route4").instances.values()] == [None] * 4


def test_slots_of_one_machine_share_no_port() -> None:
    ports = assigned("1p3d", one_machine=True, gpus=1)
    assert ports == Ports(
        instances={
            "prefill[0]": InstancePorts(http=8000, side_channel=5600),
            "decode[0]": InstancePorts(http=8001, side_channel=5601),
            "decode[1]": InstancePorts(http=8002, side_channel=5602),
            "decode[2]": InstancePorts(http=8003, side_channel=5603),
        },
        router=8004,
        router_metrics=8005,
    )


def test_side_channels_take_one_port_per_rank_and_move_past_a_taken_one() -> None:
    ports = assigned("1p1d", busy=frozenset({5603}))
    assert [p.side_channel for p in ports.instances.values()] == [5604, 5604]


def test_a_taken_port_moves_its_instance_up() -> None:
    ports = assigned("1p1d", busy=frozenset({8000, 8001}))
    assert ports.instances["prefill[0]"].http == 8002


@pytest.mark.parametrize(
    ("scheme", "busy", "sentence"),
    [
        (
            SCHEME,
            frozenset(range(8000, 8020)),
            "no 1 free ports in 8000-8019 (http) on n0; "
            "free some, or raise ports.span = 20 in the system file",
        ),
        (
            PortScheme(http=65530, span=100),
            frozenset(range(65530, 65536)),
            "no 1 free ports in 65530-65535 (http) on n0; "
            "free some, or raise ports.span = 100 in the system file",
        ),
        (
            PortScheme(span=7),
            frozenset[int](),
            "no 8 free ports in 5600-5606 (side_channel) on n0; "
            "free some, or raise ports.span = 7 in the system file",
        ),
    ],
    ids=["all taken", "the last port there is", "span too narrow"],
)
def test_an_exhausted_range_is_an_error(
    scheme: PortScheme, busy: frozenset[int], sentence: str
) -> None:
    with pytest.raises(PlacementError) as refused:
        assigned("1p3d", scheme=scheme, busy=busy)
    assert str(refused.value) == sentence


def book(*busy: int, span: int = 20) -> tuple[PortAllocator, list[int]]:
    """A book of ports, and those that it asked for."""
    asked: list[int] = []

    def claim(_: str, port: int) -> bool:
        asked.append(port)
        return port not in busy and asked.count(port) == 1

    return PortAllocator(PortScheme(http=8000, side_channel=8000, span=span), claim), asked


def test_the_last_port_of_a_range_is_handed_out() -> None:
    ports, _ = book(span=4)
    assert [ports.take("n0", "http", 0, width=2), ports.take("n0", "http", 2, width=2)] == [
        *(8000, 8002),
    ]


def test_a_port_that_was_claimed_for_a_run_in_vain_is_handed_out_later() -> None:
    ports, asked = book(8002)
    assert ports.take("n0", "side_channel", 0, width=4) == 8003
    assert [ports.take("n0", "http", 0), ports.take("n0", "http", 0)] == [8000, 8001]
    assert asked.count(8000) == 2  # what is kept already is not asked for again
