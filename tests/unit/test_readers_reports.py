"""Rows of InferenceX, llm-d Benchmark Reports, and sweeps of vLLM."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.documents import load_rows
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.imported import read_results
from pytest_pdserve.results.readers import read_row
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import Metric
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload
from tests.support.foreign import CASES
from tests.support.foreign import FORMATS
from tests.support.foreign import RESULT
from tests.support.foreign import import_files
from tests.support.foreign import runs_of

SECONDS = "times under names without _ms are read as seconds"
PER_GPU = "throughput per GPU is multiplied by the GPUs that do the work"


def figures(run: ForeignRun, *names: str) -> list[Any]:
    return [run.result.raw.get(name) for name in names]


def changed(name: str, row: int = 0, **changes: Any) -> ForeignRun:
    """Return the run of an example's row with other values."""
    data = load_rows(FORMATS / name)[row].data
    return read_row(Row(where="r", data={**data, **changes}))


# InferenceX


def test_latencies_without_a_unit_are_seconds_and_that_is_said() -> None:
    (run,) = runs_of(CASES / "latencies_without_ms.json")
    names = ("median_ttft_ms", "p99_ttft_ms", "median_e2el_ms", "median_tpot_ms", "p99_tpot_ms")
    assert figures(run, *names) == [3138.0, 16560.0, 21450.0, 141.0, 196.0]
    assert run.notes == (SECONDS,)
    assert run.not_understood == ()


def test_milliseconds_under_a_name_without_a_unit_are_longer_than_the_run(tmp_path: Path) -> None:
    (row,) = load_rows(CASES / "latencies_without_ms.json")
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**row.data, "median_ttft": 3138.0}))
    (made,) = import_files(path, runs=tmp_path / "runs")
    assert [finding.message for finding in load_record(made.path).invalid] == [
        "p50_ttft_ms = 3.138e+06, longer than the whole run of 214.64 s"
    ]


def test_an_aggregated_row_says_lengths_and_concurrency_and_nothing_else() -> None:
    single, disaggregated = runs_of(FORMATS / "inferencex_agg_built_single_and_disagg.json")
    asked = {"max_concurrency": 64, "input_len": 1024, "output_len": 1024}
    assert single.load == disaggregated.load == asked
    assert (single.result.completed, single.result.total_output_tokens) == (None, None)
    assert isnan(single.result.duration_s)
    assert single.notes == (SECONDS, PER_GPU)
    assert single.not_understood == disaggregated.not_understood == ()


def test_times_of_an_aggregated_row_are_read_in_either_spelling() -> None:
    single, _ = runs_of(FORMATS / "inferencex_agg_built_single_and_disagg.json")
    assert figures(single, "p50_ttft_ms", "p99_ttft_ms", "p50_tpot_ms", "p99_e2el_ms") == [
        *(150.5, 250.3, 25.0, 2500.0)
    ]
    measured, _ = runs_of(FORMATS / "inferencex_agg_bmk_measured_rows.json")
    assert figures(measured, "mean_ttft_ms", "mean_e2el_ms", "p90_tpot_ms") == [
        *(1169.159437501, 8506.522687501, 7.495053651)
    ]


def test_throughput_per_gpu_is_that_of_the_gpus_which_do_the_work() -> None:
    single, disaggregated = runs_of(FORMATS / "inferencex_agg_built_single_and_disagg.json")
    names = ("output_throughput", "total_token_throughput")
    assert figures(single, *names) == [12000.0, 15000.5]
    assert figures(disaggregated, *names) == [12000.0, 15000.5]


@pytest.mark.parametrize(
    "changes", [{"tp": None}, {"pp": 2}, {"output_tput_per_gpu": None}], ids=repr
)
def test_throughput_of_an_unknown_number_of_gpus_is_left_out(changes: dict[str, Any]) -> None:
    run = changed("inferencex_agg_built_single_and_disagg.json", **changes)
    assert figures(run, "output_throughput", "total_token_throughput") == [None, None]


def test_instances_and_servers_of_a_row_are_told() -> None:
    single, disaggregated = runs_of(FORMATS / "inferencex_agg_built_single_and_disagg.json")
    assert (single.instances, disaggregated.instances) == (
        {"prefill": 0},
        {"prefill": 5, "decode": 1},
    )
    assert single.served_by["hw"] == "mi300x"
    assert disaggregated.served_by["router.version"] == "1.2.3"
    assert disaggregated.versions["image"] == "test-image"


def test_what_is_computed_of_totals_is_absent_without_them() -> None:
    single, _ = runs_of(FORMATS / "inferencex_agg_built_single_and_disagg.json")
    seen = Observation(
        topology=Topology.parse("dp"),
        workload=Workload(num_prompts=1, dataset="sharegpt"),
        result=single.result,
    )
    per_request = Metric(
        name="tokens_per_request",
        unit="tokens",
        better="higher",
        read=lambda seen: (seen.result.total_output_tokens or 0) / (seen.result.completed or 0),
    )
    assert per_request.value(seen) is None


# llm-d


@pytest.mark.parametrize("version", ["v0_2", "v0_2_1"])
def test_a_report_of_llm_d_is_read_in_its_units(version: str) -> None:
    (run,) = runs_of(FORMATS / f"llmd_benchmark_report_{version}.yaml")
    names = ("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "mean_tpot_ms", "mean_e2el_ms")
    assert figures(run, *names) == [36.857823413, 50.294897216, *[36.857823413] * 3]
    assert run.load == {"request_rate": 10, "num_prompts": 500, "max_concurrency": None}
    assert run.versions["inference-perf"] == "0.3.0"
    assert run.served_by["decode.accelerator"] == "NVIDIA-H100-80GB-HBM3"
    assert run.instances == {"decode": 2}
    assert str(run.date) == "2025-11-05 18:00:42+00:00"
    assert run.not_understood[:2] == (
        "scenario.load.standardized.prefix",
        "scenario.load.standardized.multi_turn",
    )


def test_a_report_whose_throughputs_contradict_its_lengths_is_invalid(tmp_path: Path) -> None:
    (made,) = import_files(FORMATS / "llmd_benchmark_report_v0_2.yaml", runs=tmp_path / "runs")
    assert [finding.message for finding in load_record(made.path).invalid] == [
        "output_throughput = 2262.45 and request_throughput = 2262.45 make 1 output tokens per "
        "request, but 1131224 of 500 requests are 2262"
    ]


def report(**changes: Any) -> ForeignRun:
    """Return the run of a small report; changes are of its standardized load."""
    load = {"tool": "guidellm", "tool_version": "1", "source": "random", **changes}
    aggregate = {
        "requests": {"total": 4, "failures": 0, "output_length": {"mean": 256.0}},
        "latency": {"time_to_first_token": {"units": "ms", "mean": 90.0}},
    }
    data = {
        "version": "0.2",
        "run": {"uid": "x"},
        "scenario": {"load": {"standardized": load, "native": {"args": {}}}},
        "results": {"request_performance": {"aggregate": aggregate}},
    }
    return read_row(Row(where="r", data=data))


FIXED = {"distribution": "fixed", "value": 512}


@pytest.mark.parametrize(
    ("length", "asked"),
    [
        (FIXED, {"input_len": 512}),
        ({**FIXED, "min": 512, "max": 512}, {"input_len": 512}),
        ({**FIXED, "min": 500}, {}),
        ({**FIXED, "value": 512.5}, {}),
        ({**FIXED, "distribution": "gaussian"}, {}),
    ],
    ids=["fixed", "with equal ends", "with other ends", "no whole number", "drawn"],
)
def test_a_length_of_a_report_is_taken_only_if_all_requests_have_it(
    length: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert report(input_seq_len=length).load == {"num_prompts": 4, **asked}


def test_a_mean_that_vllm_bench_left_in_a_report_is_no_length() -> None:
    assert "input_len" not in report(tool="vllm-benchmark", input_seq_len=FIXED).load


def test_tokens_of_a_report_are_its_mean_times_its_requests() -> None:
    result = report().result
    assert (result.completed, result.failed) == (4, 0)
    assert (result.total_input_tokens, result.total_output_tokens) == (None, 1024)


@pytest.mark.parametrize(
    ("concurrency", "asked"), [("inf", None), (8, 8), (8.0, 8)], ids=["no bound", "8", "8.0"]
)
def test_the_concurrency_of_a_report_is_asked(concurrency: Any, asked: int | None) -> None:
    assert report(concurrency=concurrency).load["max_concurrency"] == asked


def test_a_report_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        changed("llmd_benchmark_report_v0_2.yaml", version="0.9")
    assert str(refused.value) == (
        "r: version = '0.9': expected 0.2 or 0.2.1 of the Benchmark Report"
    )


# Sweeps


def sweep(folder: Path, *, settings: dict[str, Any] | None = None) -> Path:
    """Write what a sweep of two runs leaves, one of which failed, and return the output folder."""
    combination = folder / "20260310" / "SERVE--max_num_seqs=64-BENCH--max_concurrency=4"
    combination.mkdir(parents=True)
    asked = {"max_concurrency": 4, "random_input_len": 512, "random_output_len": 256}
    rows = [
        {**RESULT, "mean_ttft_ms": 90.0 + n, **asked, "run_number": n}
        | {"dataset_name": "random", "max_num_seqs": 64, **(settings or {})}
        for n in range(2)
    ]
    for number, row in enumerate(rows):
        (combination / f"run={number}.json").write_text(json.dumps(row, indent=4))
    (combination / "summary.json").write_text(json.dumps(rows))
    (combination / "warmup.json").write_text(json.dumps({**RESULT, "run_number": -1}))
    failure = {"run_number": 2, "error_type": "RuntimeError", "error": "server died"}
    (combination / "run=2.failure.json").write_text(json.dumps(failure))
    (folder / "20260310" / "SERVE-x-failure.json").write_text("not JSON")
    (folder / "20260310" / "summary.csv").write_text(",a\n0,1\n")
    return folder


@pytest.mark.parametrize("levels", [0, 1, 2], ids=["output", "experiment", "combination"])
def test_a_folder_of_a_sweep_is_its_runs_and_what_is_left_out(tmp_path: Path, levels: int) -> None:
    folder = sweep(tmp_path / "out")
    for _ in range(levels):
        folder = next(path for path in sorted(folder.iterdir()) if path.is_dir())
    results, left_out = read_results([folder], None)
    assert [Path(read.run.where).name for read in results] == ["run=0.json", "run=1.json"]
    assert {read.workload.id for read in results} == {"random-512-256-n4-c4+unknown"}
    assert [Path(each.partition(": ")[0]).name for each in left_out] == [
        "run=2.failure.json",
        *(["SERVE-x-failure.json"] if levels < 2 else []),
    ]
    assert left_out[0].endswith(": a run that failed: RuntimeError: server died")


def test_links_in_a_folder_of_a_sweep_are_not_followed(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "out")
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({**RESULT, "run_number": 7}))
    combination = next(folder.glob("*/SERVE--*"))
    (combination / "run=7.json").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    results, left_out = read_results([folder], None)
    assert len(results) == 2
    assert {each for each in left_out if "a link" in each} == {
        f"{combination / 'run=7.json'}: a link, which is not followed",
        f"{folder / 'linked'}: a link, which is not followed",
    }


def test_what_a_sweep_set_of_the_servers_tells_them_apart(tmp_path: Path) -> None:
    served = []
    for seqs in (1, 64):
        results, _ = read_results(
            [sweep(tmp_path / str(seqs), settings={"max_num_seqs": seqs, "max-concurrency": 4})],
            None,
        )
        served += [read.run.served_by for read in results[:1]]
    assert served == [
        {"model": "org/m", "sweep.max_num_seqs": "1"},
        {"model": "org/m", "sweep.max_num_seqs": "64"},
    ]


def test_runs_of_a_sweep_share_a_start_of_the_servers(tmp_path: Path) -> None:
    made = import_files(sweep(tmp_path / "out"), runs=tmp_path / "runs")
    records = [load_record(each.path) for each in made]
    assert [(record.repeat, record.start) for record in records] == [(0, 0), (1, 0)]


def test_the_summary_of_a_sweep_is_the_same_runs(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "out")
    import_files(folder, runs=tmp_path / "runs")
    (summary,) = folder.rglob("summary.json")
    assert [made.record for made in import_files(summary, runs=tmp_path / "runs")] == [None, None]
