"""Transfers without a model on the nodes of a job: a stand-in for NIXL, a real Slurm."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.house import STUBS
from tests.support.house import House

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
