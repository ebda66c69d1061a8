"""The grammar of topology names."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.roles import AGGREGATED
from pytest_pdserve.values.roles import DECODE
from pytest_pdserve.values.roles import PREFILL
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.topology import ARTICLE_TOPOLOGIES
from pytest_pdserve.values.topology import Part
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies

FORMS = "'dp', 'route<R>', '<x>p<y>d' or '<R>x<x>p<y>d', each with an optional '-tp8' or '-tp4x8'"
COUNTS = st.integers(1, 64)


@pytest.mark.parametrize(
    ("text", "groups", "parts"),
    [
        ("dp", 1, [("aggregated", 1, None)]),
        ("dp-tp4", 1, [("aggregated", 1, 4)]),
        ("route2", 2, [("aggregated", 1, None)]),
        ("route4-tp8", 4, [("aggregated", 1, 8)]),
        ("1p3d", 1, [("prefill", 1, None), ("decode", 3, None)]),
        ("1p3d-tp8", 1, [("prefill", 1, 8), ("decode", 3, 8)]),
        ("1p3d-tp4x8", 1, [("prefill", 1, 4), ("decode", 3, 8)]),
        ("2x1p1d", 2, [("prefill", 1, None), ("decode", 1, None)]),
        ("12x10p20d-tp2x16", 12, [("prefill", 10, 2), ("decode", 20, 16)]),
    ],
)
def test_a_name_says_groups_instances_and_gpus(
    text: str, groups: int, parts: list[tuple[str, int, int | None]]
) -> None:
    topology = Topology.parse(text)
    assert topology.groups == groups
    assert [(part.role, part.count, part.tp) for part in topology.parts] == parts
    assert topology.disaggregated is (len(parts) == 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2x4", f"topology '2x4' is not of the form {FORMS}"),
        ("", f"topology '' is not of the form {FORMS}"),
        ("DP", f"topology 'DP' is not of the form {FORMS}"),
        ("1p3d ", f"topology '1p3d ' is not of the form {FORMS}"),
        ("1p3d-tp", f"topology '1p3d-tp' is not of the form {FORMS}"),
        ("-1p3d", f"topology '-1p3d' is not of the form {FORMS}"),
        ("route٣", f"topology 'route٣' is not of the form {FORMS}"),
        (
            "4p0d",
            "topology '4p0d' has 4 prefill and 0 decode instances; each must be at least 1 "
            "(instances that do both are 'dp' or 'route<R>')",
        ),
        (
            "0p4d",
            "topology '0p4d' has 0 prefill and 4 decode instances; each must be at least 1 "
            "(instances that do both are 'dp' or 'route<R>')",
        ),
        (
            "dp-tp4x8",
            "topology 'dp-tp4x8' gives 2 tensor-parallel sizes, but its instances do prefill "
            "and decode alike; write one, as in 'dp-tp4'",
        ),
        (
            "1p3d-tp4x8x8",
            "topology '1p3d-tp4x8x8' gives 3 tensor-parallel sizes for 2 roles; "
            "write one for all, or one for each",
        ),
        (
            "0x1p1d",
            "topology '0x1p1d' counts something as 0; each number must be at least 1",
        ),
        (
            "1p3d-tp4x0",
            "topology '1p3d-tp4x0' counts something as 0; each number must be at least 1",
        ),
        ("route1", "topology 'route1' is the same as 'dp'; write 'dp'"),
        ("1x1p3d", "topology '1x1p3d' is the same as '1p3d'; write '1p3d'"),
        ("01p3d", "topology '01p3d' is the same as '1p3d'; write '1p3d'"),
        ("1p3d-tp8x8", "topology '1p3d-tp8x8' is the same as '1p3d-tp8'; write '1p3d-tp8'"),
    ],
)
def test_what_is_no_name_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Topology.parse(text)
    assert str(refused.value) == sentence


def test_a_route_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="'route0' counts something as 0"):
        Topology.parse("route0")


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not of the form"):
        Topology.parse("route" + "9" * 5000)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    tp = draw(st.none() | COUNTS)
    if draw(st.booleans()):
        decode_tp = tp if tp is None else draw(COUNTS)
        parts = (
            Part(role=PREFILL, count=draw(COUNTS), tp=tp),
            Part(role=DECODE, count=draw(COUNTS), tp=decode_tp),
        )
        return Topology(groups=draw(COUNTS), parts=parts)
    return Topology(groups=draw(COUNTS), parts=(Part(role=AGGREGATED, count=1, tp=tp),))


@given(topologies())
def test_every_topology_is_read_back_from_its_id(topology: Topology) -> None:
    assert Topology.parse(topology.id) == topology


@given(st.text("dproutex0123-tp8 ", max_size=12))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    read = None
    with contextlib.suppress(ConfigError):
        read = Topology.parse(text).id
    assert read in (text, None)


def test_all_means_the_articles_five() -> None:
    assert tuple(t.id for t in parse_topologies("all")) == ARTICLE_TOPOLOGIES
    assert ARTICLE_TOPOLOGIES == ("dp", "route2", "route4", "1p3d", "2p2d")


def test_a_list_keeps_its_order() -> None:
    assert [t.id for t in parse_topologies("2p2d, dp")] == ["2p2d", "dp"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dp,1p3d,dp", "topology 'dp' occurs 2 times in 'dp,1p3d,dp'"),
        ("dp,", f"topology '' is not of the form {FORMS}"),
        (",", f"topology '' is not of the form {FORMS}"),
        (" , ,", f"topology '' is not of the form {FORMS}"),
        ("dp;1p3d", f"topology 'dp;1p3d' is not of the form {FORMS}"),
        (f"{'9' * 100}p1d", f"topology '{'9' * 79} is not of the form {FORMS}"),
    ],
    ids=["twice", "empty entry", "a comma", "commas", "semicolon", "a hundred digits"],
)
def test_a_list_with_a_mistake_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_topologies(text)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("role", "kv_role"),
    [("prefill", "kv_producer"), ("decode", "kv_consumer"), ("aggregated", None)],
)
def test_a_role_has_vllms_name(role: str, kv_role: str | None) -> None:
    assert ROLES[role].kv_role == kv_role
