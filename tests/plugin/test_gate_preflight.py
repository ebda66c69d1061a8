"""A gate measures the pairs of its nodes first: real agents, a stand-in NIXL, stub engines."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import GateVerdict
from tests.support.gates import gates
from tests.support.gates import result_in
from tests.support.gates import run_gate
from tests.support.gates import state_in
from tests.support.house import STUBS
from tests.support.house import House

pytestmark = pytest.mark.slow

ARGUMENT = "--max-num-seqs=7"
WORDS = ("--system", "stub", "--topology", "1p1d", "--baseline", "current")
CANDIDATE = ("--candidate", f"serve-args:{ARGUMENT}")


@pytest.fixture
def nodes(house: House) -> Callable[..., None]:
    """A function that writes a system whose stand-in NIXL is slow at ``local1``."""

    def write(**cluster: int) -> None:
        spec = {"sizes_mib": [1], "in_flight": [1], "prompt_lens": [32], "block_size": 16}
        house.system(
            cluster=cluster,
            sweep={"num_prompts": 1, "max_concurrency": 1},
            pd_env={
                "PYTHONPATH": str(STUBS / "transfer"),
                "PDSTUB_NIXL": str(house.path / "nixl"),
                "PDSTUB_NIXL_SLOW": "local1",
                "UCX_TLS": "tcp",
            },
            transfer={"preflight": True, "floor_gb_s": 0.001, **spec},
        )
        house.with_argument(ARGUMENT, text="wrong")

    return write


def test_a_slow_pair_is_an_error_before_the_first_start(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(nodes=2)
    assert run_gate(*WORDS, *CANDIDATE) == ExitCode.ERROR
    (folder,) = gates(house.runs)
    error = result_in(folder).error
    assert error is not None
    assert error.startswith("slow before any model is loaded: 1 of 1 pairs; cannot run: 1p1d")
    assert error.endswith(
        "repeat pdserve transfer --system stub --backends UCX --pair local1,local0"
    )
    assert state_in(folder).starts == ()


def test_a_slow_node_is_replaced_and_both_stacks_run_on_the_others(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(nodes=2, spare_nodes=1)
    assert run_gate(*WORDS, *CANDIDATE) == ExitCode.FAIL
    (folder,) = gates(house.runs)
    result = result_in(folder)
    assert (result.verdict, result.starts) == (GateVerdict.NO_GO, 4)
    records = [json.loads(path.read_text()) for path in folder.rglob("*.record.json")]
    assert {tuple(record["nodes"]) for record in records} == {("local0", "local2")}
    assert {tuple(record["cluster"]["excluded"]) for record in records} == {("local1",)}


def test_a_node_that_another_topology_needs_is_not_excluded(
    house: House, nodes: Callable[..., None]
) -> None:
    nodes(nodes=3)
    words = ("--system", "stub", "--topology", "dp,1p1d", "--baseline", "current")
    assert run_gate(*words, *CANDIDATE) == ExitCode.ERROR
    (folder,) = gates(house.runs)
    error = result_in(folder).error
    assert error is not None
    assert error.startswith("slow before any model is loaded: 1 of 1 pairs; cannot run: 1p1d")
    assert state_in(folder).starts == ()
