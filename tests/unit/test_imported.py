"""Result files of other people's runs, made into records."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.cli import main
from pytest_pdserve.results.imported import import_result
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.topology import Topology

RESULT: dict[str, Any] = {
    "date": "20260310-101500",
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


def imported(folder: Path, dataset: str = "random", **changes: Any) -> tuple[Record, Path]:
    source = folder / "result.json"
    source.write_text(json.dumps({**RESULT, **changes}))
    return import_result(
        load_bench_result(source),
        source=source,
        topology=Topology.parse("1p3d"),
        system="p5-efa",
        dataset=dataset,
        versions=(("vllm", "0.15.1"),),
        store=RunStore(folder=folder / "run"),
    )


def test_a_result_becomes_a_record_of_the_cell_it_tells_of(tmp_path: Path) -> None:
    record, path = imported(tmp_path)
    assert record.workload.id == "random-512-256"
    assert math.isinf(record.workload.request_rate)
    assert dict(record.metrics)["mean_ttft_ms"] == 90.0
    assert dict(record.metrics)["failed"] == 0
    assert record.started_at == "2026-03-10T10:15:00Z"
    assert load_record(path) == record


def test_what_only_a_live_server_shows_is_unproven_and_not_judged(tmp_path: Path) -> None:
    record, _ = imported(tmp_path)
    unproven = [finding.check for finding in record.findings if finding.severity == "unproven"]
    assert unproven == ["chunks", "served", "client"]
    assert {"mean_itl_ms", "kv_transfers"} <= record.voided
    assert record.invalid == ()


def test_a_second_import_of_a_cell_is_its_next_repeat(tmp_path: Path) -> None:
    _, first = imported(tmp_path)
    _, second = imported(tmp_path)
    assert [first.name, second.name] == ["random-512-256.0.json", "random-512-256.1.json"]


def test_failed_requests_make_the_record_invalid(tmp_path: Path) -> None:
    record, _ = imported(tmp_path, num_prompts=5)
    assert [f.check for f in record.invalid] == ["completed", "tokens", "tokens"]


def test_a_prompt_has_a_token_at_least(tmp_path: Path) -> None:
    record, path = imported(tmp_path, total_input_tokens=1)
    assert record.workload.input_len == 1
    assert load_record(path) == record


@pytest.mark.parametrize("dataset", ["", "a/b", "../../x", "a\nb", "a b"])
def test_a_dataset_is_a_name_that_files_can_have(
    dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").write_text(json.dumps(RESULT))
    arguments = ["--system", "p5-efa", "--topology", "dp", "--dataset", dataset, "r.json"]
    assert main(["import", *arguments]) == 4
    assert capsys.readouterr().err.startswith(f"pdserve: --dataset {dataset!r} is no name of ")
    assert not (tmp_path / "runs").exists()


def test_a_rate_is_part_of_the_cell(tmp_path: Path) -> None:
    record, _ = imported(tmp_path, dataset="sharegpt", request_rate=8.0)
    assert record.workload.id == "sharegpt-512-256-rate8"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"completed": 0, "total_input_tokens": 0, "total_output_tokens": 0}, "nothing to import"),
        ({"duration": None}, "'duration' is None"),
        ({"request_rate": 10**400}, "/request_rate: an integer of 1329 bits; 64 are the most"),
        ({"backend": "\ud800"}, "/backend: text that is no UTF-8: a lone surrogate"),
    ],
    ids=["nothing completed", "no duration", "400 digits", "surrogate"],
)
def test_a_result_without_substance_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        imported(tmp_path, **changes)
