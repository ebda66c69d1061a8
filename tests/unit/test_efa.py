"""RDMA interfaces: counters below a folder that stands for ``/sys``, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.backends.hosts import efa
from pytest_pdserve.judge.fabric_checks import check_fabric
from pytest_pdserve.values.fabric import FabricRun
from pytest_pdserve.values.fabric import FabricState
from pytest_pdserve.values.fabric import fabric_runs
from pytest_pdserve.values.fabric import fabric_state
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

FI_INFO = """\
provider: efa
    fabric: efa
    domain: rdmap0s6-rdm
    version: 122.0
    type: FI_EP_RDM
    protocol: FI_PROTO_EFA
provider: efa
    fabric: efa
    domain: rdmap0s6-dgrm
    version: 122.0
    type: FI_EP_DGRAM
    protocol: FI_PROTO_EFA
"""
LINES = ["efa efa rdmap0s6-rdm 122.0 FI_EP_RDM", "efa efa rdmap0s6-dgrm 122.0 FI_EP_DGRAM"]


@pytest.fixture
def sys_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes counters of an interface below a folder that stands for ``/sys``."""

    def write(device: str = "rdmap0s6", port: str = "1", **counters: object) -> Path:
        folder = tmp_path / f"sys/class/infiniband/{device}/ports/{port}/hw_counters"
        folder.mkdir(parents=True, exist_ok=True)
        for name, count in counters.items():
            (folder / name).write_text(f"{count}\n")
        return tmp_path / "sys"

    return write


def test_counters_are_named_by_interface_and_port(sys_folder: Callable[..., Path]) -> None:
    sys_folder(rx_drops=3, tx_bytes=2**40, lifespan=10, broken="none")
    root = sys_folder("rdmap1s6", "2", rx_drops=0)
    assert efa.read_counters(root) == {
        "rdmap0s6/1/rx_drops": 3,
        "rdmap0s6/1/tx_bytes": 2**40,
        "rdmap1s6/2/rx_drops": 0,
    }


def test_a_machine_without_interfaces_has_no_counters(tmp_path: Path) -> None:
    assert efa.read_counters(tmp_path) == {}


def test_an_endpoint_of_fi_info_is_one_line() -> None:
    assert efa.parse_fi_info(f"{FI_INFO}{FI_INFO}") == LINES


def state(**counters: float) -> FabricState:
    """Counters of one interface of a node."""
    return fabric_state("h01", {f"rdmap0s6/1/{n}": c for n, c in counters.items()}, LINES)


def test_only_what_rose_is_recorded_and_drops_by_interface() -> None:
    before = state(rx_drops=5, retrans_pkts=0, tx_bytes=100, rx_bytes=7)
    after = state(rx_drops=8, retrans_pkts=0, tx_bytes=900, rx_bytes=7, new=4)
    assert fabric_runs([before], [after]) == (
        FabricRun(
            node="h01",
            interfaces=1,
            provider="efa",
            fi_info=tuple(LINES),
            counted={"rx_drops": 3, "tx_bytes": 800},
            troubles={"rdmap0s6/1/rx_drops": 3},
        ),
    )


def test_a_node_that_did_not_answer_before_is_left_out() -> None:
    assert fabric_runs([], [state(rx_drops=8)]) == ()


def test_drops_and_retransmissions_are_a_note_with_the_interface(
    make_result: Callable[..., BenchResult],
) -> None:
    troubles = {f"rdmap{n}s6/1/rx_drops": n + 1.0 for n in range(5)}
    lossy = FabricRun(node="h01", interfaces=32, counted={"rx_drops": 15}, troubles=troubles)
    clean = FabricRun(node="h02", interfaces=32, counted={"tx_bytes": 15})
    topology, load = Topology.parse("route4"), Workload(input_len=32, output_len=8, num_prompts=8)
    seen = Observation(
        topology=topology, workload=load, result=make_result(), fabric=(clean, lossy)
    )
    (found,) = check_fabric(seen)
    assert found.is_note
    assert found.message == (
        "interfaces of h01 lost packets or sent them again during the load: "
        "rdmap4s6/1/rx_drops +5, rdmap3s6/1/rx_drops +4, rdmap2s6/1/rx_drops +3 and 2 more"
    )
