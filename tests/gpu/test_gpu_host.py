"""Topologies on four GPUs of this host, through the public commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.hosts.nvml import NoGpusError
from pytest_pdserve.backends.hosts.nvml import find_gpus
from pytest_pdserve.values.gpus import GpuRun

ROOT = Path(__file__).parents[2]
LIMIT_S = 300
"""Of each of the two sessions."""
FREE_S = 60
"""Until a killed session's servers must have left the GPUs."""
SHARED = "1p3d,3p1d,2x1p1d"
PROMPTS = 256
KV_BYTES_PER_TOKEN = 27 * 576 * 2
"""Of DeepSeek-V2-Lite: layers x values of the latent x bytes."""
LENGTHS = f"num_prompts = {PROMPTS}\ninput_lens = [512, 4096]\noutput_lens = [256]"

pytestmark = pytest.mark.gpu
Record = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def four_gpus() -> None:
    try:
        found = len(find_gpus())
    except NoGpusError as error:
        pytest.skip(f"needs four NVIDIA GPUs: {error}")
    if found < 4:
        pytest.skip(f"needs four NVIDIA GPUs, this machine shows {found}")


def start(folder: Path, topologies: str, **changed: str) -> subprocess.Popen[bytes]:
    """Start a session on gpu-host with *changed* lines, in a project in *folder*."""
    shutil.copytree(ROOT / "suites", folder / "suites")
    system = folder / "baselines" / "gpu-host" / "system.toml"
    system.parent.mkdir(parents=True)
    text = (ROOT / "baselines" / "gpu-host" / "system.toml").read_text()
    for key, line in changed.items():
        [old] = [each for each in text.splitlines() if each.startswith(f"{key} = ")]
        text = text.replace(f"\n{old}\n", f"\n{line}\n")
    system.write_text(text)
    (folder / "tox.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    argv = [sys.executable, "-m", "pytest", "suites/smoke", "suites/sweep", "--system", "gpu-host"]
    argv += ["--topology", topologies, "--pdserve-first-runs", "1", "--pdserve-no-record"]
    return subprocess.Popen(argv, cwd=folder, start_new_session=True)


def records_in(folder: Path) -> list[Record]:
    """Return the records of the runs in *folder*, and print their metrics."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/*.record.json"))]
    for record in found:
        values = {name: round(value, 1) for name, value in record["metrics"].items()}
        sys.stdout.write(f"{record['topology']} {record['workload']['input_len']}: {values}\n")
    return found


def wait(session: subprocess.Popen[bytes], until: Callable[[], bool]) -> None:
    """Wait until *until* is true or *session* has ended; interrupt it after ``LIMIT_S``."""
    deadline = time.monotonic() + LIMIT_S
    while session.poll() is None and not until():
        if time.monotonic() > deadline:
            os.killpg(session.pid, signal.SIGINT)
            session.wait(60)
            pytest.fail(f"the session took more than {LIMIT_S} s and was interrupted")
        time.sleep(0.2)


def check(record: Record, copies: int = 1) -> None:
    """The run is valid, and its KV bytes are those of its prompts, in *copies* (one a rank)."""
    assert [f for f in record["findings"] if f["severity"] != "note"] == []
    assert set(GpuRun.__dataclass_fields__) >= set(record["gpus"][0])
    moved = sum(counts["kv_bytes"] or 0 for counts in record["served"])
    assert moved == PROMPTS * record["workload"]["input_len"] * KV_BYTES_PER_TOKEN * copies


@pytest.fixture(scope="module")
def shared(four_gpus: None, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Records of two cells of three topologies on shared engines."""
    folder = tmp_path_factory.mktemp("shared")
    session = start(folder, SHARED, num_prompts=LENGTHS)
    wait(session, until=lambda: False)
    assert session.wait() == 0
    return records_in(folder)


@pytest.fixture(scope="module")
def killed(shared: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose session of ``1p1d-tp2`` was killed in its third cell."""
    folder = tmp_path_factory.mktemp("killed")
    lengths = LENGTHS.replace("[256]", "[256, 4096]")
    changed = {"nodes": "nodes = 2", "gpus_per_node": "gpus_per_node = 2", "num_prompts": lengths}
    session = start(folder, "1p1d-tp2", **changed)
    wait(session, until=lambda: len([*folder.glob("runs/*/*/*.record.json")]) == 2)
    assert session.poll() is None, "the session ended before its third cell"
    time.sleep(3)
    os.kill(session.pid, signal.SIGKILL)
    session.wait()
    return folder


def test_every_shared_cell_is_valid_with_exact_kv_bytes(shared: list[Record]) -> None:
    assert len(shared) == 6
    for record in shared:
        check(record)
        assert len({gpu["uuid"] for gpu in record["gpus"]}) == 4


def test_nothing_stays_on_the_gpus(shared: list[Record]) -> None:
    assert shared
    assert [gpu.users for gpu in find_gpus()] == [()] * len(find_gpus())


def test_nothing_stays_on_the_gpus_after_a_kill(killed: Path) -> None:
    killed_at = time.monotonic()
    while any(gpu.users or (gpu.used_gib or 0) > 1 for gpu in find_gpus()):
        assert time.monotonic() - killed_at < FREE_S, find_gpus()
        time.sleep(0.5)
    sys.stdout.write(f"GPUs free after {time.monotonic() - killed_at:.1f} s\n")


def test_tensor_parallel_cells_before_the_kill_are_valid(killed: Path) -> None:
    records = records_in(killed)
    assert len(records) == 2
    for record in records:
        check(record, copies=2)
