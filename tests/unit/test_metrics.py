"""Names, units and directions of metrics, and what a run has of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Metric
from pytest_pdserve.values.metrics import MetricTable
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload

MakeResult = Callable[..., BenchResult]
MakeCounts = Callable[..., ServedCounts]


WORKLOAD = Workload(input_len=512, output_len=256, num_prompts=4)


def measured(
    result: BenchResult, *served: ServedCounts, workload: Workload = WORKLOAD
) -> dict[str, float]:
    """Metrics of a run of 1p2d."""
    seen = Observation(
        topology=Topology.parse("1p2d"),
        workload=workload,
        result=result,
        served=served,
    )
    return METRICS.measure(seen)


@pytest.mark.parametrize(
    ("name", "unit", "better", "floor"),
    [
        ("mean_ttft_ms", "ms", "lower", 0.10),
        ("p99_ttft_ms", "ms", "lower", 0.40),
        ("mean_e2el_ms", "ms", "lower", 0.04),
        ("mean_itl_ms", "ms", "lower", 0.04),
        ("mean_tpot_ms", "ms", "lower", 0.04),
        ("output_throughput", "tok/s", "higher", 0.04),
    ],
)
def test_a_judged_metric_has_unit_direction_and_floor(
    name: str, unit: str, better: str, floor: float
) -> None:
    metric = METRICS[name]
    assert (metric.name, metric.unit, metric.better, metric.floor) == (name, unit, better, floor)
    assert name in METRICS.times


@pytest.mark.parametrize(
    ("name", "unit"),
    [("failed", "requests"), ("kv_bytes_per_request", "bytes"), ("kv_transfers", "transfers")],
)
def test_a_count_has_a_unit_and_no_direction(name: str, unit: str) -> None:
    assert (METRICS[name].unit, METRICS[name].better) == (unit, "equal")


def test_a_median_is_known_as_the_50th_percentile_only() -> None:
    assert [name for name in METRICS if "median" in name] == []


def test_six_metrics_are_judged_and_counts_are_held() -> None:
    assert METRICS.times == (
        *("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "mean_tpot_ms", "mean_e2el_ms"),
        "output_throughput",
    )
    assert METRICS.counts == (
        *("completed", "failed", "total_input_tokens", "total_output_tokens"),
        *("kv_transfers", "kv_failed_transfers", "kv_bytes_per_request"),
    )
    assert {METRICS[name].better for name in METRICS.counts} == {"equal"}


def test_a_night_keeps_what_is_judged_and_every_throughput() -> None:
    assert METRICS.kept == (*METRICS.times, "request_throughput", "total_token_throughput")


def test_every_metric_that_claims_may_name_has_a_floor() -> None:
    assert [name for name in METRICS.measured if METRICS[name].floor <= 0] == []


def test_what_depends_on_the_machine_is_all_but_the_counts() -> None:
    assert set(METRICS.measured) == set(METRICS) - set(METRICS.counts)


def test_what_a_client_wrote_is_read_by_name(make_result: MakeResult) -> None:
    raw = {"mean_ttft_ms": 9, "p99_itl_ms": 2.5, "std_ttft_ms": 1.0, "output_throughput": 512.0}
    assert measured(make_result(raw=raw)).items() >= {
        ("mean_ttft_ms", 9.0),
        ("p99_itl_ms", 2.5),
        ("output_throughput", 512.0),
    }
    assert "std_ttft_ms" not in measured(make_result(raw=raw))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ({"median_ttft_ms": 7.0}, 7.0),
        ({"p50_ttft_ms": 8.0, "median_ttft_ms": 7.0}, 8.0),
        ({"p50_ttft_ms": "NaN", "median_ttft_ms": 7.0}, 7.0),
        ({"mean_ttft_ms": 7.0}, None),
    ],
    ids=["median", "both", "one is no number", "neither"],
)
def test_a_median_is_read_as_the_50th_percentile(
    make_result: MakeResult, raw: dict[str, Any], value: float | None
) -> None:
    metrics = measured(make_result(raw=raw))
    assert metrics.get("p50_ttft_ms") == value
    assert "median_ttft_ms" not in metrics


@pytest.mark.parametrize(
    ("tokens", "present"),
    [
        (8, {"mean_ttft_ms", "mean_itl_ms", "p99_tpot_ms", "mean_e2el_ms", "output_throughput"}),
        (7, {"mean_ttft_ms", "mean_e2el_ms", "output_throughput"}),
        (4, {"mean_ttft_ms", "mean_e2el_ms", "output_throughput"}),
    ],
    ids=["two tokens each", "fewer on average", "one token each"],
)
def test_no_gap_follows_an_only_token(
    make_result: MakeResult, tokens: int, present: set[str]
) -> None:
    names = ("mean_ttft_ms", "mean_itl_ms", "p99_tpot_ms", "mean_e2el_ms", "output_throughput")
    result = make_result(total_output_tokens=tokens, raw=dict.fromkeys(names, 1.0))
    assert {name for name in measured(result) if METRICS[name].better != "equal"} == present


def test_the_clients_metrics_and_counts_are_one_table(
    make_result: MakeResult, make_counts: MakeCounts
) -> None:
    served = (
        make_counts("prefill[0]", kv_transfers=0.0, kv_bytes=0.0, kv_failed=1.0),
        make_counts("decode[0]", kv_transfers=3.0, kv_bytes=300.0, kv_failed=0.0),
        make_counts("decode[1]", kv_transfers=1.0, kv_bytes=100.0),
    )
    assert measured(make_result(raw={"mean_ttft_ms": 9.0}), *served) == {
        "mean_ttft_ms": 9.0,
        "completed": 4.0,
        "total_input_tokens": 2048.0,
        "total_output_tokens": 1024.0,
        "failed": 0.0,
        "kv_transfers": 4.0,
        "kv_failed_transfers": 1.0,
        "kv_bytes_per_request": 100.0,
    }


@pytest.mark.parametrize(
    ("name", "kv", "present"),
    [
        ("decode[0]", {}, set[str]()),
        ("aggregated[0]", {"kv_transfers": 4.0}, set[str]()),
        ("decode[0]", {"kv_transfers": 0.0}, {"kv_transfers"}),
    ],
    ids=["no counters", "no decode", "nothing moved"],
)
def test_transfers_are_counted_only_where_they_can_be(
    make_result: MakeResult,
    make_counts: MakeCounts,
    name: str,
    kv: dict[str, float],
    present: set[str],
) -> None:
    metrics = measured(make_result(failed=None), make_counts(name, **kv))
    assert {key for key in metrics if key.startswith("kv_")} == present
    assert "failed" not in metrics


DUE = {
    "mean_client_queue_time_ms": 100.0,
    "p99_client_queue_time_ms": 199.0,
    "mean_ttft_including_client_queue_ms": 200.0,
    "p99_ttft_including_client_queue_ms": 299.0,
    "mean_e2el_including_client_queue_ms": 300.0,
    "p99_e2el_including_client_queue_ms": 399.0,
}
"""Of three requests that waited 0, 100, 200 ms, had a token after 100 ms and two more in 100 ms."""
LISTS = {
    "queue_s": (0.0, 0.1, 0.2, 9.0),
    "ttft_s": (0.1, 0.1, 0.1, 0.0),
    "itl_s": ((0.06, 0.04),) * 3 + ((),),
    "errors": ("", "", "", "refused"),
}


@pytest.mark.parametrize(
    ("load", "lists", "expected"),
    [
        ({"request_rate": 4.0}, {}, DUE),
        ({"ramp_up": RampUp(strategy="linear", start_rps=1, end_rps=4)}, {}, DUE),
        ({}, {}, {}),  # all at once: a request is due when the client has room for it
        ({"request_rate": "unknown"}, {}, {}),
        ({"request_rate": 4.0}, {"queue_s": ()}, {}),  # before vLLM 0.30
        ({"request_rate": 4.0}, {"errors": ("refused",) * 4}, {}),
    ],
    ids=["rate", "ramp-up", "all at once", "unknown", "not said", "none answered"],
)
def test_latencies_from_when_requests_were_due(
    load: dict[str, Any],
    lists: dict[str, Any],
    expected: dict[str, float],
    make_result: MakeResult,
) -> None:
    workload = replace(WORKLOAD, **load)
    found = measured(make_result(**{**LISTS, **lists}), workload=workload)
    assert {k: v for k, v in found.items() if "client_queue" in k} == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(
    ("fact", "names"),
    [
        ("chunks", {"mean_itl_ms", "p50_itl_ms", "p90_itl_ms", "p99_itl_ms"}),
        ("counters", {"kv_transfers", "kv_failed_transfers", "kv_bytes_per_request"}),
        ("weather", set[str]()),
    ],
)
def test_a_fact_about_a_run_voids_what_it_makes_meaningless(fact: str, names: set[str]) -> None:
    assert set(METRICS.voided_by(fact)) == names


def test_the_client_is_asked_for_what_metrics_need_and_nothing_twice() -> None:
    table = MetricTable(
        (
            Metric(name="a", unit="ms", better="lower", quantity="ttft", statistic="p99"),
            Metric(name="b", unit="ms", better="lower", quantity="ttft", statistic="mean"),
            Metric(name="c", unit="ms", better="lower", quantity="itl", statistic="p99.9"),
            Metric(name="d", unit="ms", better="lower", quantity="itl", statistic="p5"),
            Metric(name="e", unit="tok/s", better="higher"),
        )
    )
    assert table.client_flags() == {
        "percentile-metrics": "ttft,itl",
        "metric-percentiles": "5,99,99.9",
    }


def test_a_table_without_percentiles_asks_for_none() -> None:
    mean = Metric(name="a", unit="ms", better="lower", quantity="ttft", statistic="mean")
    assert MetricTable((mean,)).client_flags() == {"percentile-metrics": "ttft"}
