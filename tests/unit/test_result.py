"""Results of ``vllm bench serve`` as several versions wrote them; ``data/bench/README.md``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

DATA = Path(__file__).with_name("data") / "bench"


def read(version: str) -> BenchResult:
    return load_bench_result(DATA / f"vllm-{version}.json")


def metrics_of(result: BenchResult) -> dict[str, float]:
    """What a run with this result has of metrics that depend on the machine."""
    seen = Observation(
        topology=Topology.parse("dp"),
        workload=Workload(num_prompts=result.completed or 1, dataset="sharegpt"),
        result=result,
    )
    return {n: v for n, v in METRICS.measure(seen).items() if n in METRICS.measured}


@pytest.mark.parametrize(
    ("version", "completed", "failed", "chunks", "starts"),
    [
        ("0.6.6", 3, 0, 9, False),
        ("0.8.2", 3, 0, 9, False),
        ("0.10.0", 3, 0, None, False),
        ("0.11.1", 3, 1, None, False),
        ("0.15.1-save-detailed", 2, 1, 6, True),
        ("0.32.0-save-detailed", 2, 0, 18, True),
        ("0.32.0-dead-server", 0, 2, 0, True),
    ],
)
def test_every_version_says_what_completed(
    version: str, completed: int, failed: int, chunks: int | None, starts: bool
) -> None:
    result = read(version)
    assert (result.completed, result.failed, result.chunks) == (completed, failed, chunks)
    assert result.detailed is (chunks is not None)
    assert bool(result.start_s) is starts


@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [
        ("0.6.6", {"mean_ttft_ms", "p99_itl_ms", "output_throughput"}, {"mean_e2el_ms"}),
        (
            "0.10.0",
            {"mean_tpot_ms", "total_token_throughput", "p50_ttft_ms"},
            {"median_ttft_ms", "std_ttft_ms"},
        ),
        ("0.32.0-save-detailed", {"p50_ttft_ms", "p90_e2el_ms", "mean_e2el_ms"}, {"rtfx"}),
    ],
)
def test_metrics_are_those_that_the_version_wrote(
    version: str, present: set[str], absent: set[str]
) -> None:
    names = set(metrics_of(read(version)))
    assert present <= names
    assert not absent & names


def test_per_request_entries_are_kept_in_seconds() -> None:
    result = read("0.15.1-save-detailed")
    assert result.ttft_s == (0.07, 0.0, 0.09)
    assert result.itl_s == ((0.01, 0.011), (), (0.009, 0.01))
    assert (result.input_lens, result.output_lens) == ((64, 64, 64), (3, 0, 3))
    assert result.start_s == (1000.0, 1000.1, 1000.2)
    assert [bool(text) for text in result.errors] == [False, True, False]


def test_what_is_no_list_is_kept_as_it_was_written() -> None:
    raw = read("0.6.6").raw
    assert (raw["request_rate"], raw["request_goodput:"], raw["best_of"]) == ("inf", None, 1)
    assert "ttfts" not in raw


def test_appended_results_are_refused_by_name() -> None:
    path = DATA / "vllm-0.8.5-append-result.json"
    with pytest.raises(ClientError) as refused:
        load_bench_result(path)
    assert str(refused.value) == (
        f"{path} holds more than one result, as --append-result writes them; "
        "give each a file of its own"
    )


TOTALS: dict[str, Any] = {
    "completed": 2,
    "duration": 1.5,
    "total_input_tokens": 20,
    "total_output_tokens": 4,
}


def of(**fields: Any) -> BenchResult:
    return BenchResult.from_json({**TOTALS, **fields}, source="r.json")


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({}, None),
        ({"failed": 3}, 3),
        ({"num_prompts": 5}, 3),
        ({"num_prompts": 5, "failed": None}, 3),
        ({"num_prompts": 5, "failed": "3"}, 3),
        ({"num_prompts": 1}, None),
        ({"num_prompts": None}, None),
    ],
    ids=["unknown", "said", "derived", "null", "text", "more than asked", "nothing asked"],
)
def test_failed_is_said_derived_or_unknown(fields: dict[str, Any], failed: int | None) -> None:
    assert of(**fields).failed == failed


@pytest.mark.parametrize(
    "value", [None, "inf", "12.5", True, math.nan, math.inf, 1e19, 10**400, [1.0]], ids=repr
)
def test_a_metric_that_is_no_finite_number_is_absent(value: Any) -> None:
    assert metrics_of(of(mean_ttft_ms=value, mean_itl_ms=7)) == {"mean_itl_ms": 7.0}


def test_nulls_among_requests_are_what_is_not_known() -> None:
    result = of(
        ttfts=[0.1, None],
        itls=[[0.01], None],
        input_lens=[10, None],
        output_lens=[2, None],
        start_times=[None, 5],
        errors=[None, "boom"],
    )
    assert result.ttft_s[0] == 0.1
    assert math.isnan(result.ttft_s[1])
    assert (result.itl_s, result.input_lens, result.output_lens) == (((0.01,), ()), (10, 0), (2, 0))
    assert math.isnan(result.start_s[0])
    assert result.errors == ("", "boom")


@pytest.mark.parametrize(
    ("lists", "detailed", "chunks"),
    [
        ({"output_lens": [2, 2]}, True, None),
        ({"itls": [[0.1], [0.1]]}, False, None),
        ({"itls": None, "output_lens": None}, False, None),
        ({"itls": [[], []], "output_lens": [1, 1]}, True, 2),
        ({"itls": [[], []], "output_lens": [0, 0]}, True, 0),
        ({"itls": [[0.1], []], "output_lens": [4, 0]}, True, 2),
    ],
    ids=[
        *("lengths alone", "gaps alone", "null lists", "one token each", "no token", "one failed"),
    ],
)
def test_lists_may_be_there_in_part(
    lists: dict[str, Any], detailed: bool, chunks: int | None
) -> None:
    result = of(**lists)
    assert (result.detailed, result.chunks) == (detailed, chunks)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"completed": None},
            "r.json is not a result of vllm bench serve: 'completed' is None, not a number",
        ),
        (
            {"duration": "1.5"},
            "r.json is not a result of vllm bench serve: 'duration' is '1.5', not a number",
        ),
        (
            {"duration": -1.0},
            "r.json is not a result of vllm bench serve: 'duration' is -1.0, not a number",
        ),
        (
            {"total_output_tokens": True},
            "r.json is not a result of vllm bench serve: 'total_output_tokens' is True, not a "
            "number",
        ),
        (
            {"duration": 1e300},
            "r.json is not a result of vllm bench serve: 'duration' is 1e+300, not a number",
        ),
        ({"output_lens": [2, 1e300]}, "r.json: output_lens[1] is 1e+300, not what it should be"),
        ({"input_lens": [-1, 2]}, "r.json: input_lens[0] is -1, not what it should be"),
        ({"completed": 1.5}, "r.json: 'completed' is 1.5, not a whole number"),
        ({"itls": "none"}, "r.json: 'itls' is str, not a list"),
        ({"itls": [[0.1], 3]}, "r.json: itls[1] is 3, not what it should be"),
        ({"ttfts": [{}, 0.1]}, "r.json: ttfts[0] is {}, not what it should be"),
        ({"output_lens": ["two", 2]}, "r.json: output_lens[0] is 'two', not what it should be"),
        (
            {"ttfts": [0.1], "output_lens": [2, 2]},
            "r.json: lists of one entry per request differ in length: ttfts 1, output_lens 2",
        ),
    ],
    ids=[
        *("null total", "text total", "negative", "bool", "huge", "huge length"),
        *("negative length", "half a request", "text for a list"),
        *("number for gaps", "object for a time", "word for a length", "lengths differ"),
    ],
)
def test_what_is_no_result_is_refused_with_a_sentence(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError) as refused:
        of(**fields)
    assert str(refused.value) == message


@pytest.mark.parametrize("missing", list(TOTALS))
def test_a_missing_total_is_named(missing: str) -> None:
    data = {key: value for key, value in TOTALS.items() if key != missing}
    with pytest.raises(ClientError, match=f"'{missing}' is None"):
        BenchResult.from_json(data, source="r.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ('{"completed": 2', "is not valid JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"completed": ' + "9" * 5000 + "}", "is not valid JSON: Exceeds the limit"),
        (json.dumps({**TOTALS, "duration": math.nan}), "'duration' is 'NaN', not a number"),
        ('{"completed": 1e999}', "'completed' is '1e999', not a number"),
    ],
    ids=["empty", "cut", "list", "null", "twice", "deep", "digits", "NaN", "too large"],
)
def test_a_bad_file_gives_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ClientError) as refused:
        load_bench_result(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_an_error_of_the_client(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot be read: No such file"):
        load_bench_result(tmp_path / "r.json")


def test_odd_numbers_beside_the_totals_are_kept_as_text(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**TOTALS, "rtfx": math.nan, "mean_ttft_ms": math.inf}))
    result = load_bench_result(path)
    assert (result.raw["rtfx"], metrics_of(result)) == ("NaN", {})
    json.dumps(dict(result.raw), allow_nan=False)
