"""Which pairs a preflight measures, which nodes it excludes, and what takes their place."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.nodes import HeldNodes
from pytest_pdserve.backends.nodes import check_complete
from pytest_pdserve.plan.host import Host
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.transfer.measuring import TransferPlan
from pytest_pdserve.transfer.preflight import Preflight
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.errors import TransferError
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferFigure
from tests.support.systems import LEAST
from tests.support.systems import loaded

SETTINGS = "[transfer]\nfloor_gb_s = 1.0\npreflight = true\nsizes_mib = [1]\n"
FAST_MS, SLOW_MS = 0.5, 50.0


class Nodes(HeldNodes):
    """Nodes n0, n1, …"""

    def __init__(self, used: int, spare: int, client: str) -> None:
        names = [f"n{number}" for number in range(used + spare)]
        super().__init__([Host(name=name, address=name, interface="lo") for name in names], used)
        self.client_node = client


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(Preflight):
    """A preflight whose agents are a table: each transfer with a slow node takes 50 ms."""

    slow: Collection[str] = ()
    once: set[str] = field(default_factory=set)
    """Nodes that are slow in one measurement only."""
    orders: list[str] = field(default_factory=list)
    """Every pair that was measured, as ``reader<source``."""

    def measure(self, plan: TransferPlan, label: str) -> tuple[PairFigures, ...]:
        found = []
        for pair in plan.pairs:
            self.orders.append(f"{pair.reader}<{pair.source}")
            ends = {pair.reader, pair.source}
            ms = SLOW_MS if ends & {*self.slow, *self.once} else FAST_MS
            (shape,) = plan.shapes
            figure = TransferFigure(shape=shape, first_ms=ms, ms=(ms,), posting_ms=(0.1,))
            found.append(
                PairFigures(
                    pair=pair,
                    backend="UCX",
                    provider="UCX_TLS=tcp",
                    memory="DRAM",
                    figures=(figure,),
                )
            )
        self.once.clear()
        return tuple(found)


Make = Callable[..., Measured]


@pytest.fixture
def preflight(tmp_path: Path) -> Make:
    """A function that makes the preflight of *topologies* on *nodes* and *spare* nodes."""

    def make(
        topologies: str, *, nodes: int = 4, spare: int = 0, client: str = "own", **fields: Any
    ) -> Measured:
        shared = fields.pop("shared_host", "false")
        cluster = f"nodes = {nodes}\nspare_nodes = {spare}\nshared_host = {shared}"
        text = LEAST.replace("nodes = 2", cluster)
        return Measured(
            allocation=Nodes(nodes, spare, client),  # type: ignore[arg-type]
            system=loaded(tmp_path, text + SETTINGS),
            topologies=tuple(map(Topology.parse, topologies.split(","))),
            rotation=0,
            baseline=None,
            checked={},
            store=RunStore(folder=tmp_path / "run", session=SessionRef(id="s")),
            fingerprint="f",
            progress=lambda text: None,
            **fields,
        )

    return make


def held(one: Preflight) -> tuple[list[str], list[str]]:
    """The nodes in use, and the excluded ones."""
    nodes = one.allocation
    assert isinstance(nodes, HeldNodes)
    return [host.name for host in nodes.hosts], [*nodes.excluded]


def test_every_pair_of_a_group_is_measured_once_before_its_first_topology(
    preflight: Make,
) -> None:
    one = preflight("route4,1p3d,2p2d")
    one.check()
    one.check()
    assert sorted(one.orders) == ["n1<n0", "n2<n0", "n2<n1", "n3<n0", "n3<n1"]
    for topology in one.topologies:
        one.require(topology)


def test_a_topology_without_the_slow_pair_runs_and_the_others_are_named(preflight: Make) -> None:
    one = preflight("route4,1p3d,2p2d", slow={"n3"})
    one.check()
    one.require(Topology.parse("route4"))
    with pytest.raises(TransferError) as raised:
        one.require(Topology.parse("1p3d"))
    lines = str(raised.value).splitlines()
    file = one.system.source
    assert lines[:3] == [
        "slow before any model is loaded: 1 of 3 pairs; cannot run: 1p3d, 2p2d",
        "n3 is slow in all of its 2 pairs that were measured",
        "no spare node can take the place of n3: hold more with spare_nodes in [cluster] of "
        f"{file}",
    ]
    assert lines[3].startswith("n3 <- n0 by UCX (UCX_TLS=tcp, DRAM), 1MiB: 50.00 ms (")
    assert lines[3].endswith(f"expected at least 1 GB/s ([transfer] floor_gb_s of {file})")
    assert lines[4] == "  repeat  pdserve transfer --system mine --backends LIBFABRIC --pair n3,n0"
    assert held(one) == (["n0", "n1", "n2", "n3"], [])


@pytest.mark.parametrize("slow", ["n0", "n1", "n3"])
@pytest.mark.parametrize("topologies", ["1p3d", "2p2d", "2x1p1d", "route4,1p3d,2p2d"])
def test_a_spare_node_takes_the_place_of_the_slow_one(
    topologies: str, slow: str, preflight: Make
) -> None:
    one = preflight(topologies, spare=1, slow={slow})
    one.check()
    before = [f"n{number}" for number in range(4)]
    assert held(one) == ([n if n != slow else "n4" for n in before], [slow])
    for topology in one.topologies:
        one.require(topology)
    assert len(one.orders) - len(set(one.orders)) == sum(slow in pair for pair in set(one.orders))


@pytest.mark.parametrize("slow", ["n0", "n1"])
def test_of_a_single_slow_pair_the_spare_node_shows_which_end_is_slow(
    slow: str, preflight: Make
) -> None:
    one = preflight("1p1d", nodes=2, spare=1, slow={slow})
    one.check()
    other = "n1" if slow == "n0" else "n0"
    assert set(held(one)[0]) == {other, "n2"}
    assert held(one)[1] == [slow]
    assert list(dict.fromkeys(one.orders)) == ["n1<n0", "n1<n2", "n2<n0"]
    one.require(Topology.parse("1p1d"))


def test_the_reason_has_the_figures_of_all_of_the_nodes_pairs(preflight: Make) -> None:
    one = preflight("1p3d", spare=1, slow={"n0"})
    one.check()
    nodes = one.allocation
    assert isinstance(nodes, HeldNodes)
    figures = ", ".join(f"n{number} <- n0 50.00 ms (0.021 GB/s)" for number in (1, 2, 3))
    more = "n4 <- n0 50.00 ms (0.021 GB/s)"
    assert nodes.excluded["n0"] in {
        f"slow in all of its {count} pairs that were measured by UCX (UCX_TLS=tcp, DRAM): {text}; "
        f"expected at least 1 GB/s ([transfer] floor_gb_s of {one.system.source})"
        for count, text in ((3, figures), (4, f"{figures}, {more}"))
    }


def test_idle_nodes_of_the_system_are_used_too(preflight: Make) -> None:
    one = preflight("1p1d", slow={"n1"})
    one.check()
    assert held(one) == (["n0", "n2", "n3"], ["n1"])
    one.require(Topology.parse("1p1d"))
    with pytest.raises(PlacementError, match=r"^topology 'dp' needs 4 nodes, but 3 are left: n1 "):
        check_complete(one.allocation, Topology.parse("dp"), one.system)
    check_complete(one.allocation, Topology.parse("1p2d"), one.system)


def test_a_spare_node_that_is_slow_itself_is_not_used(preflight: Make) -> None:
    one = preflight("1p2d", nodes=3, spare=2, slow={"n2", "n3"})
    one.check()
    assert held(one) == (["n0", "n1", "n4"], ["n2", "n3"])
    one.require(Topology.parse("1p2d"))


def test_nobody_is_excluded_if_every_pair_is_slow(preflight: Make) -> None:
    one = preflight("1p3d", spare=1, slow={f"n{number}" for number in range(5)})
    one.check()
    assert held(one) == (["n0", "n1", "n2", "n3"], [])
    with pytest.raises(TransferError, match="3 of 3 pairs; cannot run: 1p3d"):
        one.require(Topology.parse("1p3d"))


def test_a_disturbance_of_one_measurement_excludes_nobody(preflight: Make) -> None:
    one = preflight("1p3d", spare=1, once={"n0"})
    one.check()
    assert held(one) == (["n0", "n1", "n2", "n3"], [])
    assert len(one.orders) == 6


def test_the_node_of_the_client_stays_unless_all_nodes_are_one_machine(preflight: Make) -> None:
    one = preflight("1p3d", spare=1, slow={"n3"}, client="n3")
    one.check()
    assert held(one)[1] == []
    with pytest.raises(TransferError, match="n3 is not replaced, since the benchmark client runs"):
        one.require(Topology.parse("1p3d"))
    other = preflight("1p3d", spare=1, slow={"n3"}, client="n3", shared_host="true")
    other.check()
    assert held(other)[1] == ["n3"]


def test_a_later_topology_measures_only_what_is_new_or_was_slow(preflight: Make) -> None:
    one = preflight("1p3d", slow={"n3"})
    one.check()
    del one.orders[:]
    later = replace(one, topologies=(Topology.parse("2p2d"),))
    later.check()
    assert set(later.orders) == {"n3<n0", "n2<n1", "n3<n1"}


@pytest.mark.parametrize(
    ("machines", "same"), [("several", True), ("one", False)], ids=["several", "one"]
)
def test_baselines_stay_valid_with_spare_nodes_unless_slots_share_the_cores(
    machines: str, same: bool, tmp_path: Path
) -> None:
    shared = f"shared_host = {str(machines == 'one').lower()}"
    digests = {
        fingerprint(
            {"cpu": "x"},
            loaded(
                tmp_path, LEAST.replace("nodes = 2", f"nodes = 2\nspare_nodes = {spare}\n{shared}")
            ),
        )
        for spare in (0, 1)
    }
    assert (len(digests) == 1) is same
