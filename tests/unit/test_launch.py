"""The plan of a whole launch, as ``pdserve plan``, the checks and the deployment use it."""

from __future__ import annotations

import pytest

from pytest_pdserve.plan.host import planned_hosts
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.plan.ports import unclaimed
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
    launch = plan_launch(
        Topology.parse(topology), p5_efa, hosts=planned_hosts(p5_efa), claim=unclaimed()
    )
    assert [command.name for command in launch.commands] == names
    assert {command.node for command in launch.commands} == set(launch.placement.nodes)
