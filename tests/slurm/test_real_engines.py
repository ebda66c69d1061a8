"""Real vLLM, NIXL and router on the nodes of a real Slurm; the same records as on one machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pdserve.results.store import load_record
from tests.support.onehost import OneHost
from tests.support.onehost import start_one_host

pytestmark = [pytest.mark.slurm, pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest

@pytest.mark.pdserve_panels("prefill")
def test_one_cell_is_sane(pdserve_run):
    assert pdserve_run.records[0].invalid == ()
"""


@pytest.fixture(scope="module")
def patient(installed: None) -> Iterator[OneHost]:
    """A Slurm that does not take a busy node for a dead one."""
    with start_one_host(4, "--down-after=60", "--one-scheduling-group") as host:
        yield host


@pytest.mark.parametrize("topology", ["1p3d", "route4"])
def test_a_cell_is_measured_through_slurm(patient: OneHost, tmp_path: Path, topology: str) -> None:
    suite, runs = tmp_path / "test_cell.py", tmp_path / "runs"
    suite.write_text(SUITE)
    command = [
        *(sys.executable, "-m", "pytest", str(suite), "-k", "32-16", "-q", "-c", os.devnull),
        *(f"--rootdir={ROOT}", "--import-mode=importlib", "-p", "no:cacheprovider"),
        *("--topology", topology, "--system", "onehost-slurm", "--pdserve-runs", str(runs)),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "SLURM_CONF": str(patient.conf)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    (path,) = runs.glob(f"*/{topology}/random-32-16-n16-c4.0.record.json")
    record = load_record(path)
    assert (record.cluster["kind"], record.cluster["client_node"]) == ("slurm", "pd0")
    assert record.nodes == ("pd0", "pd1", "pd2", "pd3")
    assert [f for f in record.findings if f.severity != "note"] == []
    assert {"vllm", "nixl", "vllm-router", "kernel"} <= set(record.versions)
    assert record.metrics["completed"] == record.workload.num_prompts
    if topology == "1p3d":
        assert record.metrics["kv_transfers"] == record.workload.num_prompts
    assert patient.run("squeue", "--noheader").stdout == ""
