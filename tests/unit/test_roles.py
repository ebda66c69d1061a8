"""A role is one row: its instances are planned, told to the router, and counted."""

from __future__ import annotations

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import Role
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

ENCODE = Role(name="encode", letter="e", router_flag="--encode", needs=("prefill",))


@pytest.fixture
def encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role more, after the others."""
    monkeypatch.setitem(ROLES, ENCODE.name, ENCODE)


@pytest.fixture
def system() -> System:
    return load_system("p5-efa", SHIPPED)


@pytest.mark.usefixtures("encode")
def test_a_role_that_is_added_gets_a_plan(system: System) -> None:
    launch = plan_topology(system, Topology.parse("1p2d1e")).launch
    assert [each.name for each in launch.instances] == [
        "prefill[0]",
        "decode[0]",
        "decode[1]",
        "encode[0]",
    ]
    encoder = launch.instances[-1]
    assert "--kv-transfer-config.kv_role" not in encoder.argv
    assert "VLLM_NIXL_SIDE_CHANNEL_PORT" not in dict(encoder.env)
    assert launch.router is not None
    flags = [word for word in launch.router.argv if word in ("--prefill", "--decode", "--encode")]
    assert flags == ["--prefill", "--decode", "--decode", "--encode"]


@pytest.mark.usefixtures("encode")
@pytest.mark.parametrize("name", ["1p2d1e", "2x1p1d1e", "1p1d2e-tp8", "1p1d1e-tp4x8x2"])
def test_its_letter_is_part_of_a_topologys_name(name: str) -> None:
    topology = Topology.parse(name)
    assert topology.id == name
    assert [part.role for part in topology.parts] == ["prefill", "decode", "encode"]


@pytest.mark.usefixtures("encode")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1d1e", "topology '1d1e' has 1 decode and 1 encode and 0 prefill instances"),
        ("1e", "topology '1e' has 1 encode and 0 prefill instances"),
        ("1p1d0e", "topology '1p1d0e' has 1 prefill and 1 decode and 0 encode instances"),
        ("1p1d1e-tp4x8", "topology '1p1d1e-tp4x8' gives 2 tensor-parallel sizes for 3 roles"),
        ("1e1p1d", "topology '1e1p1d' is not of the form"),
    ],
)
def test_a_topology_without_what_a_role_needs_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Topology.parse(name)
    assert str(caught.value).startswith(said)


def test_without_the_row_its_letter_means_nothing() -> None:
    with pytest.raises(ConfigError, match="is not of the form"):
        Topology.parse("1p2d1e")
