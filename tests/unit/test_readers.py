"""Results of each tool and version: what was asked and measured, and what is not understood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results import readers as package
from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.documents import load_rows
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.imported import workload_of
from pytest_pdserve.results.readers import read_row
from pytest_pdserve.results.readers import readers
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload
from tests.support.foreign import CASES
from tests.support.foreign import FORMATS
from tests.support.foreign import RESULT
from tests.support.foreign import runs_of

BENCH = Path(__file__).with_name("data") / "bench"
VLLM = {
    "0.6.6": BENCH / "vllm-0.6.6.json",
    "0.8.2": BENCH / "vllm-0.8.2.json",
    "0.8.5 appended": BENCH / "vllm-0.8.5-append-result.json",
    "0.10.0": BENCH / "vllm-0.10.0.json",
    "0.11.1": BENCH / "vllm-0.11.1.json",
    "0.15.1 detailed": BENCH / "vllm-0.15.1-save-detailed.json",
    "0.32.0 detailed": BENCH / "vllm-0.32.0-save-detailed.json",
    "2025 metadata": FORMATS / "vllm_bench_serve_2025-05_with_metadata.json",
    "2026 plain": FORMATS / "vllm_bench_serve_2026-07_plain.json",
    "2026 appended": FORMATS / "vllm_bench_serve_appended.json",
    "2026 detailed": FORMATS / "vllm_bench_serve_detailed_shape.json",
}
OTHERS = {
    "inferencex raw": ("inferencex_raw_glm5_fp8_vllm_tp8_isl1024_osl128_conc16.json", "inferencex"),
    "inferencex rows": ("inferencex_agg_bmk_measured_rows.json", "inferencex"),
    "inferencex built": ("inferencex_agg_built_single_and_disagg.json", "inferencex"),
    "llm-d 0.2": ("llmd_benchmark_report_v0_2.yaml", "llmd"),
    "llm-d 0.2.1": ("llmd_benchmark_report_v0_2_1.yaml", "llmd"),
    "sglang": ("sglang_bench_serving_row.jsonl", "sglang"),
}


def measured(run: ForeignRun) -> dict[str, float]:
    """Return the metrics of a run that depend on the machine."""
    seen = Observation(
        topology=Topology.parse("dp"),
        workload=Workload(num_prompts=1, dataset="sharegpt"),
        result=run.result,
    )
    return {n: v for n, v in METRICS.measure(seen).items() if n in METRICS.measured}


def format_of(row: Row) -> str:
    """Return the name of the reader that a row gets."""
    return next(name for name, module in readers().items() if module.reads(row.data))


@pytest.mark.parametrize("path", VLLM.values(), ids=VLLM)
def test_every_version_of_vllm_is_read(path: Path) -> None:
    for row in load_rows(path):
        assert format_of(row) == "vllm"
        run = read_row(row)
        assert run.has_latency
        assert run.not_understood in ((), ("deployment", "gpu", "gateway"))
        assert measured(run)["mean_ttft_ms"] > 0


def test_every_name_that_vllm_writes_is_understood() -> None:
    """Names of 0.6.0 to 0.33.0, as the source of each version has them."""
    names = {
        *("input_sequence_throughput", "total_input_sequences", "rps_change_events", "rtfx"),
        *("spec_decode_acceptance_rate", "spec_decode_per_position_acceptance_rates"),
        *("diffusion_committed_throughput", "max_output_tokens_per_s", "max_concurrent_requests"),
        *("request_goodput", "request_goodput:", "best_of", "use_beam_search", "latencies"),
        *("queue_times", "start_times", "generated_texts", "errors", "itls", "ttfts"),
        *("endpoint_type", "backend", "label", "tokenizer_id", "burstiness", "max_concurrency"),
        *(
            "ramp_up_strategy",
            "ramp_up_start_rps",
            "ramp_up_end_rps",
            "std_tpot_ms",
            "p99.9_itl_ms",
        ),
    }
    run = read_row(Row(where="r", data={**dict.fromkeys(names), **RESULT}))
    assert run.not_understood == ()


@pytest.mark.parametrize(("name", "reader"), OTHERS.values(), ids=OTHERS)
def test_a_format_is_known_by_its_own_names(name: str, reader: str) -> None:
    assert {format_of(row) for row in load_rows(FORMATS / name)} == {reader}


def test_lengths_metadata_and_prefill_instances_are_taken_from_metadata() -> None:
    (run,) = runs_of(FORMATS / "vllm_bench_serve_2025-05_with_metadata.json")
    assert run.load == {
        "request_rate": 10.0,
        "num_prompts": 300,
        "burstiness": 1.0,
        "max_concurrency": None,
        "input_len": 1000,
        "output_len": 500,
    }
    assert run.instances == {"prefill": 0, "decode": 4}
    assert run.served_by == {"model": "meta-llama/Llama-3.2-3B-Instruct"}


def test_the_version_of_vllm_is_taken_from_metadata() -> None:
    run = read_row(Row(where="r", data={**RESULT, "vllm_version": "0.15.1"}))
    assert (run.versions, run.not_understood) == ({"vllm": "0.15.1"}, ())


def test_a_time_without_a_unit_beside_milliseconds_is_not_understood() -> None:
    row = Row(where="r", data={**RESULT, "mean_ttft": "0.09"})
    assert format_of(row) == "vllm"
    assert read_row(row).not_understood == ("mean_ttft",)


def test_a_ramp_up_is_part_of_what_was_asked() -> None:
    (run,) = runs_of(CASES / "ramp_up.json")
    assert run.load["ramp_up"] == RampUp(strategy="linear", start_rps=1, end_rps=10)


def test_the_lists_of_a_detailed_result_are_kept() -> None:
    (run,) = runs_of(VLLM["0.32.0 detailed"])
    assert (run.result.detailed, run.result.chunks) == (True, 18)


# sglang


def test_a_row_of_sglang_has_its_own_latencies_and_lengths() -> None:
    (run,) = runs_of(CASES / "sglang_one_line.jsonl")
    assert run.load == {
        "dataset": "random",
        "input_len": 1,
        "output_len": 512,
        "request_rate": None,
        "burstiness": 1.0,
        "max_concurrency": None,
    }
    assert measured(run) == {
        "mean_e2el_ms": 381236.8,
        "p50_e2el_ms": 374559.6,
        "p50_ttft_ms": 10014.1,
        "p50_itl_ms": 371.8,
        "output_throughput": 12412.4,
    }
    assert run.not_understood == ()


def test_the_throughput_of_all_tokens_of_sglang_is_read_under_our_name() -> None:
    (run,) = runs_of(FORMATS / "sglang_bench_serving_row.jsonl")
    assert measured(run)["total_token_throughput"] == 5778.92
    assert (run.not_understood, run.result.failed) == ((), None)


def sglang(**changes: Any) -> ForeignRun:
    (row,) = load_rows(FORMATS / "sglang_bench_serving_row.jsonl")
    return read_row(Row(where="r", data={**row.data, **changes}))


@pytest.mark.parametrize(
    ("changes", "asked", "notes"),
    [
        (
            {"random_range_ratio": 0.5},
            {"dataset": "random"},
            ("lengths vary (random_range_ratio 0.5): they are not taken for 3200 and 800",),
        ),
        (
            {"dataset_name": "random-ids"},
            {"dataset": "random", "input_len": 3200, "output_len": 800},
            ("data set 'random-ids' of sglang is vLLM's 'random'",),
        ),
        ({"dataset_name": "sharegpt"}, {"dataset": "sharegpt"}, ()),
        (
            {"dataset_name": None, "request_rate": "trace", "num_prompts": 510},
            {"request_rate": "unknown", "num_prompts": 510},
            (),
        ),
    ],
    ids=["lengths vary", "random ids", "sharegpt with defaults", "trace"],
)
def test_what_sglang_did_not_ask_of_every_request_is_not_taken(
    changes: dict[str, Any], asked: dict[str, Any], notes: tuple[str, ...]
) -> None:
    run = sglang(**changes)
    others = {"request_rate": None, "burstiness": 1.0, "max_concurrency": 64}
    assert run.load == {**others, **asked}
    assert run.notes == notes


def test_the_server_of_sglang_is_what_served() -> None:
    run = sglang(server_info={"version": "0.5.5", "model_path": "org/m", "tp_size": 8})
    assert run.versions == {"sglang": "0.5.5"}
    assert run.served_by == {"model": "org/m"}


# All readers


def test_a_module_is_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        'TEXT = "results of mine"\n'
        'def reads(row):\n    return "mine" in row\n'
        'def read(row):\n    return f"<{row.where}>"\n'
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert list(readers())[-1] == "vllm"
    found: object = read_row(Row(where="r", data={"mine": 1, "completed": 1, "duration": 1}))
    assert found == "<r>"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pytorch_hud_records.json", "benchmark, model, metric"),
        ("aiperf_profile_export.jsonl", "metadata, metrics, error"),
    ],
)
def test_a_format_that_nobody_reads_is_refused(name: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        runs_of(FORMATS / name)
    assert str(refused.value) == (
        f"{FORMATS / name} row 1: an object of {told} is not a result that can be imported; "
        "expected one of: rows of InferenceX, and other results with times in seconds; llm-d "
        "Benchmark Reports 0.2 and 0.2.1; rows of sglang's bench_serving; results and folders of "
        "vllm bench sweep; CSV tables of nightly values (night,topology,workload,metric,value); "
        "results of vllm bench serve"
    )


EXAMPLES = sorted([*FORMATS.iterdir(), *CASES.rglob("*.json*")])


@pytest.mark.quick_cases(8)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("junk", [None, [], {}, "x", -1, True, 1e30], ids=repr)
def test_junk_in_place_of_any_value_is_a_sentence_or_left_out(path: Path, junk: Any) -> None:
    """Every value of every example, replaced one after the other."""
    refused = []
    for row in load_rows(path)[:1]:
        for place in _places(row.data):
            try:
                workload_of(read_row(Row(where="r", data=_with(row.data, place, junk))), None)
            except ConfigError as error:
                refused.append(str(error))
    assert not [message for message in refused if not message.isprintable()]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value[:2])
        for key, each in entries:
            yield from _places(each, (*path, key))


def _with(data: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """Return *data* with another value at one place."""
    first, *rest = path
    made = data.copy()
    made[first] = _with(data[first], tuple(rest), junk) if rest else junk
    return made
