"""Topologies on four GPUs of this host, through the public commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.hosts.nvml import NoGpusError
from pytest_pdserve.backends.hosts.nvml import find_gpus
from pytest_pdserve.values.gpus import GpuRun

ROOT = Path(__file__).parents[2]
LIMIT_S = 500
SHARED = "route4,1p3d,2p2d"

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def four_gpus() -> None:
    try:
        found = len(find_gpus())
    except NoGpusError as error:
        pytest.skip(f"needs four NVIDIA GPUs: {error}")
    if found < 4:
        pytest.skip(f"needs four NVIDIA GPUs, this machine shows {found}")


@pytest.fixture(scope="module")
def records(four_gpus: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Records of two cells of three topologies on shared engines; servers are watched meanwhile."""
    folder = tmp_path_factory.mktemp("gpu")
    shutil.copytree(ROOT / "suites", folder / "suites")
    system = folder / "baselines" / "gpu-host" / "system.toml"
    system.parent.mkdir(parents=True)
    text = (ROOT / "baselines" / "gpu-host" / "system.toml").read_text()
    lengths = "num_prompts = 256\ninput_lens = [512, 4096]\noutput_lens = [256]"
    system.write_text(text.replace("num_prompts = 256", lengths))
    (folder / "tox.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    argv = [sys.executable, "-m", "pytest", "suites/smoke", "suites/sweep"]
    argv += ["--system", "gpu-host", "--topology", SHARED, "--pdserve-share-engines"]
    argv += ["--pdserve-first-runs", "1", "--pdserve-no-record"]
    session = subprocess.Popen(argv, cwd=folder, start_new_session=True)
    deadline = time.monotonic() + LIMIT_S
    while session.poll() is None and time.monotonic() < deadline:
        time.sleep(1)
    if session.poll() is None:
        os.killpg(session.pid, signal.SIGINT)
    assert session.wait(60) == 0
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/*.record.json"))]
    for record in found:
        values = {name: round(value, 1) for name, value in record["metrics"].items()}
        sys.stdout.write(f"{record['topology']} {record['workload']['input_len']}: {values}\n")
    return found


def test_every_cell_is_valid_and_on_gpus_of_its_own(records: list[dict[str, Any]]) -> None:
    assert len(records) == 6
    for record in records:
        assert [f for f in record["findings"] if f["severity"] != "note"] == []
        assert len({gpu["uuid"] for gpu in record["gpus"]}) == 4
        assert set(GpuRun.__dataclass_fields__) >= set(record["gpus"][0])


def test_kv_bytes_are_exact(records: list[dict[str, Any]]) -> None:
    for record in (each for each in records if each["topology"] != "route4"):
        moved = sum(counts["kv_bytes"] or 0 for counts in record["served"])
        tokens = 256 * record["workload"]["input_len"]
        assert moved == tokens * 27 * 576 * 2


def test_nothing_stays_on_the_gpus(records: list[dict[str, Any]]) -> None:
    assert records
    assert [gpu.users for gpu in find_gpus()] == [()] * len(find_gpus())
