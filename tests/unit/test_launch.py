"""The plan of a whole launch, as ``pdserve plan``, the checks and the deployment use it."""

from __future__ import annotations

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


@pytest.mark.parametrize(
    ("topology", "names"),
    [
        ("1p3d", ["prefill[0]", "decode[0]", "decode[1]", "decode[2]", "router"]),
        ("dp", ["aggregated[0]", *(f"aggregated[0]/rank{rank}" for rank in (1, 2, 3))]),
    ],
)
def test_the_router_comes_last_and_only_where_there_is_one(
    p5_efa: System, topology: str, names: list[str]
) -> None:
    launch = plan_topology(p5_efa, Topology.parse(topology)).launch
    assert [command.name for command in launch.commands] == names
    assert {command.node for command in launch.commands} == set(launch.placement.nodes)
