"""What was asked of a run that somebody else measured: what its file says, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.imported import read_results
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.workload import Workload
from tests.support.foreign import import_files
from tests.support.foreign import result_file


def workload(folder: Path, dataset: str | None = None, **changes: Any) -> Workload:
    """Return what a result is said to have asked."""
    ((read,), _) = read_results([result_file(folder, **changes)], dataset)
    return read.workload


def refusal(folder: Path, dataset: str | None = None, **changes: Any) -> str:
    """Return why a result is not imported."""
    path = result_file(folder, **changes)
    with pytest.raises(ConfigError) as refused:
        read_results([path], dataset)
    return str(refused.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("dataset", "changes", "name"),
    [
        (None, {}, "unknown-2048in-1024out-n4-c-unknown+unknown"),
        ("random", {}, "random-unknown-unknown-2048in-1024out-n4-c-unknown+unknown"),
        ("sharegpt", {}, "sharegpt-n4-c-unknown+unknown"),
        (
            "sharegpt",
            {"request_rate": 8.0},
            "sharegpt-n4-rate8-burst-unknown-c-unknown+unknown",
        ),
        (
            "sharegpt",
            {"request_rate": 8, "burstiness": 0.5, "max_concurrency": 16},
            "sharegpt-n4-rate8-burst0.5-c16+unknown",
        ),
        (
            "sharegpt",
            {"ramp_up_strategy": "exponential", "ramp_up_start_rps": 1, "ramp_up_end_rps": 16},
            "sharegpt-n4-burst-unknown-ramp-exponential-1to16-c-unknown+unknown",
        ),
        (
            "sharegpt",
            {"request_rate": None},
            "sharegpt-n4-rate-unknown-burst-unknown-c-unknown+unknown",
        ),
        ("sharegpt", {"num_prompts": None, "failed": 0}, "sharegpt-n4-c-unknown+unknown"),
        (
            "sharegpt",
            {"num_prompts": None},
            "sharegpt-2048in-1024out-n-unknown-c-unknown+unknown",
        ),
    ],
    ids=[
        *("alone", "random", "sharegpt", "rate", "all that files say", "ramp-up", "no rate"),
        *("prompts by what ended", "no prompts"),
    ],
)
def test_what_a_result_does_not_say_is_unknown(
    tmp_path: Path, dataset: str | None, changes: dict[str, Any], name: str
) -> None:
    assert workload(tmp_path, dataset, **changes).id == name


@pytest.mark.parametrize(
    "said",
    [
        {"input_len": "512", "output_len": "256"},
        {"random_input_len": 512, "random_output_len": 256},
        {"random-input-len": "512", "random-output-len": "256"},
        {"isl": "512", "osl": "256"},
        {"random_input_len": 512, "input_len": 9, "output_len": 256, "osl": 9},
    ],
    ids=["metadata", "sweep", "dashes", "isl and osl", "the most telling name"],
)
@pytest.mark.parametrize("dataset", [None, "random"])
def test_lengths_are_those_that_the_file_says(
    tmp_path: Path, dataset: str | None, said: dict[str, Any]
) -> None:
    found = workload(tmp_path, dataset, **said)
    assert (found.lengths, found.counted_tokens) == ((512, 256), None)


@pytest.mark.parametrize(
    "said",
    [
        {"input_len": "512"},
        {"input_len": "long", "output_len": "256"},
        {"input_len": True, "output_len": 256},
        {"input_len": 512, "output_len": 256, "random_range_ratio": 0.5},
    ],
    ids=["one only", "in words", "true", "they vary"],
)
def test_lengths_that_are_not_said_of_every_request_are_unknown(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    found = workload(tmp_path, "random", **said)
    assert (found.lengths, found.counted_tokens) == (None, (2048, 1024))


def test_lengths_are_never_means_of_what_came_back(tmp_path: Path) -> None:
    (made,) = import_files(result_file(tmp_path), runs=tmp_path / "runs", dataset="random")
    record = load_record(made.path)
    assert "unknown-unknown" in record.workload.id
    said = [f.message for f in record.findings if f.check == "tokens"]
    assert said == [
        "1024 output tokens; the expected number is unknown",
        "2048 input tokens; the expected number is unknown",
    ]


def test_a_data_set_of_the_file_is_taken_and_may_be_repeated(tmp_path: Path) -> None:
    assert workload(tmp_path, dataset_name="sharegpt").dataset == "sharegpt"
    assert workload(tmp_path, "sharegpt", dataset_name="sharegpt").dataset == "sharegpt"
    assert workload(tmp_path, "sharegpt", dataset_name="/data/x.json").dataset == "sharegpt"


RATE = "expected requests per second from 0.001 to 1,000,000, or None to send all at once"
PROMPTS = "expected a whole number of requests from 1 to 10,000,000"
RAMP = "expected a RampUp with a strategy ('linear', 'exponential') and two whole rates from 1"
NO_LATENCY = (
    "it has no latency (TTFT, ITL, TPOT, E2EL) under a known name, so there is nothing to judge"
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_rate": "fast"}, f"workload request_rate = 'fast': {RATE}"),
        ({"request_rate": 0}, f"workload request_rate = 0: {RATE}"),
        ({"request_rate": True}, f"workload request_rate = True: {RATE}"),
        ({"num_prompts": 4.5}, f"workload num_prompts = 4.5: {PROMPTS}"),
        ({"num_prompts": "4"}, f"workload num_prompts = '4': {PROMPTS}"),
        (
            {"max_concurrency": 0},
            "workload max_concurrency = 0: expected a whole number of requests from 1 to "
            "1,000,000, or None for no bound",
        ),
        (
            {"request_rate": 8.0, "burstiness": -1},
            "workload burstiness = -1: expected a number above 0",
        ),
        ({"burstiness": "x"}, "workload burstiness = 'x': expected a number above 0"),
        (
            {"ramp_up_strategy": "linear", "ramp_up_end_rps": 8},
            f"workload ramp_up = RampUp(strategy='linear', start_rps='unknown', end_rps=8): {RAMP}",
        ),
        (
            {"input_len": 10_000_001, "output_len": 1},
            "workload input_len = 10000001: expected a whole number of tokens from 1 to 10,000,000",
        ),
        (
            {"dataset_name": "../../etc/passwd"},
            "data set '../../etc/passwd': expected a name of letters, digits, '.', '_' and '-'; "
            "name it with --dataset",
        ),
        (
            {"dataset_name": "a\nb"},
            r"dataset_name = 'a\nb': expected one line of text, at most 300 characters",
        ),
        (
            {"dataset_name": "sharegpt", "input_len": 512},
            "workload input_len = 512: data set 'sharegpt' brings lengths of its own; leave it out "
            "(lengths are for random, random-mm, sonnet)",
        ),
        (
            {"model_id": "a\x1b[31mb"},
            r"model_id = 'a\x1b[31mb': expected one line of text, at most 300 characters",
        ),
        (
            {"backend": "simulated"},
            "FILE was simulated: no server ran, so there is nothing to import",
        ),
        ({"completed": 0}, "no request completed, so there is nothing to import"),
        ({"duration": None}, "duration = None: expected a number from 0"),
        ({"mean_ttft_ms": None, "mean_itl_ms": None, "mean_tpot_ms": None}, NO_LATENCY),
        (
            {"mean_ttft_ms": None, "mean_itl_ms": None, "mean_tpot_ms": None, "ttft": 90.0},
            NO_LATENCY,
        ),
    ],
    ids=[
        *("rate in words", "no rate", "rate true", "half a prompt", "prompts as text"),
        *("no request", "burstiness", "burstiness of all at once", "ramp-up from nowhere"),
        *("senseless length", "path as data set", "data set of two lines"),
        *("lengths of a data set that has its own", "model that steers", "simulated"),
        *("nothing completed", "no duration", "no latency", "latency of no statistic"),
    ],
)
def test_a_result_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert refusal(tmp_path, **changes).removeprefix("FILE: ") == message


def test_a_data_set_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "random", dataset_name="sharegpt") == (
        "FILE: is of data set 'sharegpt', but --dataset is 'random'; leave it out"
    )


@pytest.mark.parametrize(
    ("backend", "changes"),
    [
        ("openai-embeddings", {"mean_e2el_ms": 900.0, "total_output_tokens": None}),
        ("vllm-pooling", {"mean_e2el_ms": 900.0}),
        ("vllm-rerank", {"mean_e2el_ms": 900.0, "total_output_tokens": 0}),
        ("infinity-embeddings", {"mean_e2el_ms": 900.0}),
    ],
)
def test_a_benchmark_without_output_has_no_tokens_to_time(
    tmp_path: Path, backend: str, changes: dict[str, Any]
) -> None:
    assert refusal(tmp_path, backend=backend, **changes) == (
        f"FILE: backend {backend!r}: an embeddings benchmark, or another without output, has no "
        "tokens to time"
    )
