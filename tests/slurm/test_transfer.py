"""Transfers without a model on the nodes of a job: a stand-in for NIXL, a real Slurm."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.house import STUBS
from tests.support.house import House
from tests.support.onehost import said

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm-b")]


def test_every_two_nodes_of_a_job_are_measured(slurm_house: House) -> None:
    slurm_house.system(
        cluster={"nodes": 3},
        pd_env={
            "PYTHONPATH": str(STUBS / "transfer"),
            "PDSTUB_NIXL": str(slurm_house.path / "nixl"),
        },
        transfer={"sizes_mib": [1], "in_flight": [1], "repeats": 3},
    )
    words = ["transfer", "--system", "stub", "--case", "32tok", "--json", "found.json"]
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", *words]
    log = slurm_house.path / "transfer.log"
    assert slurm_house.spawn(command, log).wait(timeout=60) == 0, log.read_text()
    rows = json.loads((slurm_house.path / "found.json").read_text())["transfers"]
    pairs = {(row["reader"], row["source"]) for row in rows}
    nodes = {node for pair in pairs for node in pair}
    assert len(nodes) == 3
    assert all(node.startswith("pd") for node in nodes)
    assert pairs == {(a, b) for a in nodes for b in nodes if a != b}
    assert slurm_house.survivors(10.0) == []


def test_a_slow_node_of_a_job_is_replaced_by_its_spare_node(slurm_house: House) -> None:
    slurm_house.system(
        cluster={"nodes": 2, "spare_nodes": 1},
        **{"slurm.parameters": {"nodelist": "pd0,pd1,pd2"}},
        pd_env={
            "PYTHONPATH": str(STUBS / "transfer"),
            "PDSTUB_NIXL": str(slurm_house.path / "nixl"),
            "PDSTUB_NIXL_SLOW": "pd1",
        },
        transfer={
            "preflight": True,
            "floor_gb_s": 0.001,
            "block_size": 16,
            "sizes_mib": [1],
            "in_flight": [1],
            "prompt_lens": [32],
        },
    )
    text = said(slurm_house, "--topology", "1p1d")
    assert "pd1 is excluded from this session, and pd2 takes its place: slow in all of " in text
    assert "pd1 was excluded from this session: slow in all of its 2 pairs that were " in text
    (record,) = slurm_house.records()
    assert record["nodes"] == ["pd0", "pd2"]
    assert record["cluster"]["nodes"] == ["pd0", "pd2"]
    assert "pd1 <- pd0 6" in record["cluster"]["excluded"]["pd1"]
    assert slurm_house.survivors(10.0) == []
