"""What a test requires of the system, and whether it is there."""

from __future__ import annotations

import pytest

from pytest_pdserve.plugin.markers import unmet
from pytest_pdserve.values.system import ClusterSpec
from pytest_pdserve.values.topology import Topology

CLUSTER = ClusterSpec(nodes=4, gpus_per_node=8)


@pytest.mark.parametrize(
    ("required", "topology", "said"),
    [
        ({"nodes": 4, "gpus_per_node": 8}, "dp", None),
        ({"nodes": 5}, "dp", "needs nodes >= 5, the system has 4"),
        ({"gpus_per_node": 9}, "dp", "needs gpus_per_node >= 9, the system has 8"),
        ({"disaggregated": True}, "1p3d", None),
        ({"disaggregated": True}, "dp", "dp does not separate prefill and decode"),
        ({"disaggregated": False}, "1p3d", "1p3d separates prefill and decode"),
    ],
)
def test_a_requirement_is_met_by_just_as_much(
    required: dict[str, int], topology: str, said: str | None
) -> None:
    mark = pytest.mark.pdserve_requires(**required).mark
    assert unmet(mark, Topology.parse(topology), CLUSTER) == said
