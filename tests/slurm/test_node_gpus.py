"""GPUs of Slurm nodes in records: a stand-in for NVML on each node of a real Slurm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.house import House

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-b"), pytest.mark.slow]

NVML = """
import os, sys
sys.path.insert(0, {root!r})
from tests.support import fake_nvml
node = os.environ.get("SLURMD_NODENAME", "login")
gpu = fake_nvml.FakeGpu(uuid=f"GPU-{{node}}", users=((2**22 + 1, 1.0),), reasons=(0x4,))
globals().update(vars(fake_nvml.module((gpu,))))
"""


def test_a_record_has_the_gpus_of_every_node(
    slurm_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = slurm_house.path / "bin" / "nvidia-smi"
    shown.parent.mkdir()
    shown.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.1'\n")
    shown.chmod(0o755)
    (slurm_house.path / "nvml").mkdir()
    root = str(Path(__file__).parents[2])
    (slurm_house.path / "nvml" / "pynvml.py").write_text(NVML.format(root=root))
    monkeypatch.setenv("PATH", f"{shown.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(slurm_house.path / "nvml"))
    slurm_house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    (path,) = slurm_house.runs.glob("*/1p1d/*.record.json")
    record = json.loads(path.read_text())
    seen = [(gpu["node"], gpu["uuid"], gpu["name"]) for gpu in record["gpus"]]
    assert seen == [(node, f"GPU-{node}", "NVIDIA H200") for node in record["cluster"]["nodes"]]
    for gpu in record["gpus"]:
        assert gpu["before"]["sm_mhz"] == gpu["after"]["sm_mhz"] == 1755
        assert gpu["others"] == []
    steps = slurm_house.runs.glob("**/*-gpus-pd0.json")
    assert len(list(steps)) == 1
