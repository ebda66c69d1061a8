"""Imports that are killed, and two at once: no night that was stored is ever lost."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_pdserve.history.importing import import_folders
from pytest_pdserve.history.importing import run_folders
from pytest_pdserve.history.store import Store
from pytest_pdserve.results.imported import read_results
from pytest_pdserve.results.imported import store_results

NIGHTS = 20
METRICS = ("mean_ttft_ms", "p99_ttft_ms", "output_throughput")
OF_NIGHT = 2 * len(METRICS)
IMPORT = """
import sys
from pathlib import Path
import pyarrow.parquet
from pytest_pdserve.history.compaction import compact
from pytest_pdserve.history.importing import import_folders, run_folders
from pytest_pdserve.history.store import Store

store, (folders, _) = Store.create(Path(sys.argv[1])), run_folders([Path(sys.argv[2])])
print("ready", flush=True)
sys.stdin.readline()
for each in import_folders(store, folders[:: int(sys.argv[3])]):
    print(each.entry.session.id, flush=True)
compact(store, min_files=5)
print("joined", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the run folders of so many nights in ``runs``."""
    lines = [
        f"2026-11-{day:02},{topology},chat,{metric},{day}"
        for day in range(1, NIGHTS + 1)
        for topology in ("dp", "1p3d")
        for metric in METRICS
    ]
    table = tmp_path / "nights.csv"
    table.write_text("\n".join(["night,topology,workload,metric,value", *lines]))
    results, left_out = read_results([table], None)
    assert left_out == ()
    store_results(results, topology=None, system="mine", versions={}, runs=tmp_path / "runs")
    return tmp_path


def importer(folder: Path, order: int = 1) -> subprocess.Popen[str]:
    """Start a process that imports the shelf's nights once it is told to.

    :param order: 1 for the oldest first, -1 for the newest first.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORT, folder / "history", folder / "runs", str(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.read().split()


def check_killed(folder: Path, seed: int) -> None:
    """Kill an import at a moment that *seed* draws, and hold what is there against what it told."""
    source = random.Random(seed)
    with importer(folder) as process:
        begin(process)
        assert process.stdout is not None
        whole = source.randrange(NIGHTS)
        told = [process.stdout.readline().strip() for _ in range(whole)]
        spin = time.perf_counter() + source.uniform(0.0, 0.02)  # somewhere in the next write
        while time.perf_counter() < spin:
            pass
        process.kill()
        told += [line for line in lines_of(process) if line != "joined"]
    store = Store.open(folder / "history")
    values = store.values()
    stored = set(values["session"])
    assert stored >= set(told)
    assert [sentence for sentence in store.unreadable if " is damaged" in sentence] == []
    assert len(stored) <= len(told) + 1
    assert (values.groupby("session").size() == OF_NIGHT).all()
    folders, _ = run_folders([folder / "runs"])
    assert len(list(import_folders(store, folders))) == NIGHTS
    assert len(store.values()) == NIGHTS * OF_NIGHT


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("seed", range(2))
def test_an_import_that_is_killed_loses_at_most_the_night_being_written(
    seed: int, folder: Path
) -> None:
    check_killed(folder, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22))
def test_twenty_imports_that_are_killed_lose_at_most_the_night_being_written(
    seed: int, folder: Path
) -> None:
    check_killed(folder, seed)


@pytest.mark.slow
def test_two_imports_at_once_lose_nothing_and_store_nothing_twice(folder: Path) -> None:
    with importer(folder) as one, importer(folder, -1) as other:
        begin(one)
        begin(other)
        told = [lines_of(process) for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0)
    assert [len(lines) for lines in told] == [NIGHTS + 1] * 2
    values = Store.open(folder / "history").values()
    assert len(values) == NIGHTS * OF_NIGHT
    assert len(run_folders([folder / "runs"])[0]) == NIGHTS
