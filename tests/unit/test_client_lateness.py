"""What the client ``precise`` says of its own lateness, and what is then not judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.judge.client_checks import check_client
from pytest_pdserve.judge.client_lateness import check_client_lateness
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

ON_TIME = {
    "client_clock": "kernel",
    "client_p99_read_late_ms": 2.06,
    "client_mean_send_late_ms": 0.1,
    "client_lateness_share": {"mean_ttft_ms": 0.001, "mean_itl_ms": 0.01},
    "chunks_read_together": 0,
    "tokens_beyond_chunks": 0,
}
Make = Callable[..., Observation]


@pytest.fixture
def seen(make_result: Callable[..., BenchResult]) -> Make:
    def make(result: dict[str, Any] | None = None, **said: Any) -> Observation:
        return Observation(
            topology=Topology.parse("dp"),
            workload=Workload(input_len=512, output_len=256, num_prompts=4),
            result=make_result(raw={**ON_TIME, **said}, **(result or {})),
        )

    return make


def test_a_client_that_was_on_time_voids_nothing(seen: Make) -> None:
    assert list(check_client_lateness(seen())) == []


def test_a_client_that_does_not_say_how_late_it_was_is_not_asked(
    make_result: Callable[..., BenchResult], seen: Make
) -> None:
    assert list(check_client_lateness(replace(seen(), result=make_result()))) == []


CASES = {
    "moved": (
        {"client_lateness_share": {"mean_ttft_ms": 0.034, "p99_ttft_ms": 0.0101, "std": 9}},
        "note",
        "the client's own lateness may change mean_ttft_ms by 3.4%, limit 1%; p99 of its reads is "
        "2.1 ms late; mean_ttft_ms, p99_ttft_ms, mean_ttft_including_client_queue_ms, "
        "p99_ttft_including_client_queue_ms are not judged: give the client more CPU, or a lower "
        "max_concurrency",
        (
            "mean_ttft_ms",
            "p99_ttft_ms",
            "mean_ttft_including_client_queue_ms",
            "p99_ttft_including_client_queue_ms",
        ),
    ),
    "median": (
        {"client_lateness_share": {"median_itl_ms": 0.02}, "client_p99_read_late_ms": None},
        "note",
        "the client's own lateness may change p50_itl_ms by 2.0%, limit 1%; p50_itl_ms is not "
        "judged: give the client more CPU, or a lower max_concurrency",
        ("p50_itl_ms",),
    ),
    "user-space-clock": (
        {"client_clock": "user-space clock"},
        "unproven",
        "not every chunk has the kernel's arrival time (client_clock = user-space clock): "
        "a chunk that waited to be read counts as late",
        (),
    ),
    "shares-unknown": (
        {"client_lateness_share": "?"},
        "unproven",
        "the client does not report how much its lateness adds to metrics",
        (),
    ),
    "tokens-in-one-chunk": (
        {"tokens_beyond_chunks": 7},
        "note",
        "7 of 1024 tokens came in a chunk with others, so they have no inter-token latency",
        (),
    ),
    "chunks-read-together": (
        {"chunks_read_together": 11},
        "note",
        "11 of 1024 chunks were read together with the one before, and share one time",
        (),
    ),
}


@pytest.mark.parametrize(("said", "severity", "message", "voids"), CASES.values(), ids=CASES)
def test_what_the_clients_lateness_moves_is_not_judged(
    said: dict[str, Any], severity: Any, message: str, voids: tuple[str, ...], seen: Make
) -> None:
    expected = Finding(check="client_lateness", severity=severity, message=message, voids=voids)
    assert list(check_client_lateness(seen(**said))) == [expected]


@pytest.mark.parametrize(
    "said", [{"tokens_beyond_chunks": 21}, {"chunks_read_together": 10}], ids=str
)
def test_what_another_check_says_or_is_little_is_not_said(said: dict[str, Any], seen: Make) -> None:
    assert list(check_client_lateness(seen(**said))) == []


def test_a_client_that_says_how_late_it_sent_needs_no_idle_core(seen: Make) -> None:
    busy = replace(seen({"start_s": ()}), client_cpu=1.0)
    assert list(check_client(busy)) == []
    unknown = replace(seen({"start_s": ()}, client_mean_send_late_ms=None), client_cpu=1.0)
    assert [finding.severity for finding in check_client(unknown)] == ["unproven"]
