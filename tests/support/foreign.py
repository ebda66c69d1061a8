"""Results of other tools, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_pdserve.results.documents import load_rows
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.imported import Imported
from pytest_pdserve.results.imported import read_results
from pytest_pdserve.results.imported import store_results
from pytest_pdserve.results.readers import read_row
from pytest_pdserve.values.topology import Topology

DATA = Path(__file__).parents[1] / "data"
FORMATS = DATA / "formats"
CASES = DATA / "cases" / "import"
RESULT: dict[str, Any] = {
    "date": "20260310-101500",
    "model_id": "org/m",
    "num_prompts": 4,
    "request_rate": "inf",
    "completed": 4,
    "duration": 2.0,
    "total_input_tokens": 2048,
    "total_output_tokens": 1024,
    "request_throughput": 2.0,
    "output_throughput": 512.0,
    "mean_ttft_ms": 90.0,
    "mean_tpot_ms": 7.0,
    "mean_itl_ms": 7.0,
}
"""What ``vllm bench serve`` of an early version wrote."""


def result_file(folder: Path, name: str = "result.json", **changes: Any) -> Path:
    """Write a result; changes to None leave the name out."""
    path = folder / name
    kept = {key: value for key, value in {**RESULT, **changes}.items() if value is not None}
    path.write_text(json.dumps(kept))
    return path


def runs_of(path: Path) -> list[ForeignRun]:
    """Return what the readers make of a file."""
    return [read_row(row) for row in load_rows(path)]


def import_files(
    *paths: Path, runs: Path, topology: str = "1p3d", dataset: str | None = None
) -> list[Imported]:
    """Import files, as results of ``p5-efa``."""
    results, _ = read_results(paths, dataset)
    return store_results(
        results, topology=Topology.parse(topology), system="p5-efa", versions={}, runs=runs
    )
