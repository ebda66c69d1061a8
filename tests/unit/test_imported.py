"""Result files of other people's runs, made into records."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.imported import import_result
from pytest_pdserve.results.imported import workload_of
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import UNKNOWN
from tests.support.records import SESSION

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
        versions={"vllm": "0.15.1"},
        store=RunStore(folder=folder / "run", session=SESSION),
    )


def test_a_result_becomes_a_record_of_the_cell_it_tells_of(tmp_path: Path) -> None:
    record, path = imported(tmp_path)
    assert record.workload.id == "random-512-256-n4-burst-unknown-c-unknown+unknown"
    assert record.workload.request_rate is None
    assert record.metrics["mean_ttft_ms"] == 90.0
    assert record.metrics["failed"] == 0
    assert record.started_at == "2026-03-10T10:15:00Z"
    assert (record.session, record.start) == (SESSION, None)
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
    stem = "random-512-256-n4-burst-unknown-c-unknown+unknown"
    assert [first.name, second.name] == [f"{stem}.0.record.json", f"{stem}.1.record.json"]


def test_failed_requests_make_the_record_invalid(tmp_path: Path) -> None:
    record, _ = imported(tmp_path, num_prompts=5)
    assert [f.check for f in record.invalid] == ["completed", "tokens", "tokens"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"total_input_tokens": 1}, "random-unknown-256-1in-1024out-n4"),
        ({"total_output_tokens": 1023}, "random-512-unknown-2048in-1023out-n4"),
        ({"total_input_tokens": 0}, "random-unknown-256-0in-1024out-n4"),
    ],
    ids=["a token of four prompts", "a token short", "no token"],
)
def test_a_length_that_totals_do_not_tell_is_unknown(
    tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    record, path = imported(tmp_path, **changes)
    assert record.workload.id == f"{name}-burst-unknown-c-unknown+unknown"
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


@pytest.mark.parametrize(
    ("dataset", "changes", "name"),
    [
        (
            "sharegpt",
            {"request_rate": 8.0},
            "sharegpt-n4-rate8-burst-unknown-c-unknown+unknown",
        ),
        (
            "sharegpt",
            {"request_rate": 8, "burstiness": 1.0, "max_concurrency": None},
            "sharegpt-n4-rate8+unknown",
        ),
        (
            "random",
            {"request_rate": 0.5, "burstiness": 0.5, "max_concurrency": 16},
            "random-512-256-n4-rate0.5-burst0.5-c16+unknown",
        ),
        (
            "random",
            {
                "burstiness": 1.0,
                "max_concurrency": None,
                "ramp_up_strategy": "exponential",
                "ramp_up_start_rps": 1,
                "ramp_up_end_rps": 16,
            },
            "random-512-256-n4-ramp-exponential-1to16+unknown",
        ),
        (
            "unknown",
            {"burstiness": 1.0, "max_concurrency": None},
            "unknown-2048in-1024out-n4+unknown",
        ),
        (
            "random",
            {"num_prompts": None, "failed": 0},
            "random-512-256-n4-burst-unknown-c-unknown+unknown",
        ),
        (
            "random",
            {"num_prompts": None},
            "random-512-256-n-unknown-burst-unknown-c-unknown+unknown",
        ),
    ],
    ids=[
        *("rate alone", "rate", "all that files say", "ramp-up", "data set unknown"),
        *("prompts by what ended", "prompts unknown"),
    ],
)
def test_a_load_is_what_the_result_says_of_it_and_else_unknown(
    tmp_path: Path, dataset: str, changes: dict[str, Any], name: str
) -> None:
    record, path = imported(tmp_path, dataset, **changes)
    assert record.workload.id == name
    assert load_record(path) == record


def test_a_rate_that_is_not_told_is_no_load_at_once(tmp_path: Path) -> None:
    told, _ = imported(tmp_path)
    source = tmp_path / "result.json"
    source.write_text(json.dumps({k: v for k, v in RESULT.items() if k != "request_rate"}))
    untold = workload_of(load_bench_result(source), "random", source="result.json")
    assert untold.request_rate == UNKNOWN
    assert untold != told.workload


def test_a_data_set_is_unknown_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").write_text(json.dumps(RESULT))
    arguments = ["import", "--system", "p5-efa", "--topology", "dp", "r.json"]
    assert main(arguments) == 0
    assert main([*arguments, "--dataset", "random"]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines() if "/" in line]
    assert [name for name in names if name.endswith(".json")] == [
        "unknown-2048in-1024out-n4-burst-unknown-c-unknown+unknown.0.record.json",
        "random-512-256-n4-burst-unknown-c-unknown+unknown.0.record.json",
    ]


RATE = "expected requests per second from 0.001 to 1,000,000, or None to send all at once"
RAMP = "workload ramp_up = RampUp(strategy='linear', start_rps='unknown', end_rps=8): expected"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_rate": "fast"}, f"workload request_rate = 'fast': {RATE}"),
        ({"request_rate": 0}, f"workload request_rate = 0: {RATE}"),
        ({"request_rate": True}, f"workload request_rate = True: {RATE}"),
        ({"request_rate": math.nan}, f"workload request_rate = 'NaN': {RATE}"),
        (
            {"num_prompts": 4.5},
            "workload num_prompts = 4.5: expected a whole number of requests from 1 to 10,000,000",
        ),
        (
            {"max_concurrency": 0},
            "workload max_concurrency = 0: expected a whole number of requests from 1 to 1,000,000",
        ),
        (
            {"request_rate": 8.0, "burstiness": -1},
            "workload burstiness = -1: expected a number above 0",
        ),
        ({"ramp_up_strategy": "linear", "ramp_up_end_rps": 8}, RAMP),
        (
            {"total_output_tokens": 4 * 10_000_001},
            "workload output_len = 10000001: expected a whole number of tokens from 1 to",
        ),
    ],
    ids=[
        *("rate in words", "no rate", "rate true", "rate NaN", "half a prompt", "no request"),
        *("burstiness", "ramp-up from nowhere", "senseless length"),
    ],
)
def test_a_result_of_a_load_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError) as refused:
        imported(tmp_path, **changes)
    assert str(refused.value).startswith(f"{tmp_path / 'result.json'}: {message}")


@pytest.mark.parametrize(
    ("lists", "entry"),
    [
        ({"ttfts": [0.1, math.inf]}, "ttfts[1]"),
        ({"start_times": [1e300, 1.0]}, "start_times[0]"),
        ({"itls": [[0.1], [-1e300]]}, "itls[1]"),
        ({"input_lens": [-1, 2]}, "input_lens[0]"),
    ],
    ids=["infinite time", "huge time", "huge negative gap", "negative prompt"],
)
def test_entries_of_requests_that_cannot_be_are_refused(
    tmp_path: Path, lists: dict[str, Any], entry: str
) -> None:
    with pytest.raises(ClientError) as refused:
        imported(tmp_path, **{"output_lens": [512, 512], **lists})
    assert f": {entry} is " in str(refused.value)


def test_a_simulated_result_is_no_run_to_import(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="was simulated: no server ran, so it is no run"):
        imported(tmp_path, backend="simulated")


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
