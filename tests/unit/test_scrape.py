"""Counters at ``/metrics``: read, subtracted, waited for."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from pytest_pdserve.serving.scrape import SETTLE_S
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import difference
from pytest_pdserve.serving.scrape import parse_counters
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.scrape import scrape_router
from pytest_pdserve.serving.scrape import settled
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.roles import DECODE as DECODE_ROLE

DECODE = """
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds {start}
# HELP vllm:nixl_xfer_time_seconds Histogram of transfer duration for NIXL KV Cache transfers.
# TYPE vllm:nixl_xfer_time_seconds histogram
vllm:nixl_xfer_time_seconds_bucket{{engine="0",le="0.005",model_name="m"}} {kv}
vllm:nixl_xfer_time_seconds_bucket{{engine="0",le="+Inf",model_name="m"}} {kv}
vllm:nixl_xfer_time_seconds_count{{engine="0",model_name="m"}} {kv}
vllm:nixl_xfer_time_seconds_sum{{engine="0",model_name="m"}} 0.5
# HELP vllm:nixl_bytes_transferred Histogram of bytes transferred per NIXL KV Cache transfers.
# TYPE vllm:nixl_bytes_transferred histogram
vllm:nixl_bytes_transferred_bucket{{engine="0",le="+Inf",model_name="m"}} {kv}
vllm:nixl_bytes_transferred_count{{engine="0",model_name="m"}} {kv}
vllm:nixl_bytes_transferred_sum{{engine="0",model_name="m"}} 2.097152e+06
# HELP vllm:nixl_num_failed_transfers_total Number of failed NIXL KV Cache transfers.
# TYPE vllm:nixl_num_failed_transfers_total counter
vllm:nixl_num_failed_transfers_total{{engine="0",model_name="m"}} 0.0
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="m"}} 40.0
vllm:generation_tokens_total{{engine="1",model_name="m"}} 2.0
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{{engine="0",finished_reason="stop",model_name="m"}} 1.0
vllm:request_success_total{{engine="0",finished_reason="length",model_name="m"}} {done}
vllm:request_success_total{{engine="0",finished_reason="abort",model_name="m"}} 0.0
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{{block_size="128",cache_dtype="auto",engine="0"}} 1.0
"""


def shown(*, start: float = 1.79e9, kv: float = 8.0, done: float = 40.0) -> str:
    return DECODE.format(start=start, kv=kv, done=done)


def test_only_lines_of_counters_are_parsed() -> None:
    others = "vllm:other{ is never parsed\nvllm:request_success_total_created 1.7e9\n"
    with pytest.raises(ValueError, match=r"\S"):
        parse_counters(others)  # unless there is no other line
    assert parse_counters(others + shown()) == parse_counters(shown())


def test_counters_are_summed_over_engines_and_reasons() -> None:
    counters = parse_counters(shown())
    assert counters.get("requests") == 41.0
    assert counters.get("generation_tokens") == 42.0
    assert counters.get("kv_transfers") == 8.0
    assert counters.get("kv_bytes") == 2097152.0
    assert counters.get("prefix_cache_hits") is None
    assert counters.block_size == 128


@pytest.mark.parametrize("said", ["None", "", "-1"])
def test_a_block_size_that_is_no_number_is_unknown(said: str) -> None:
    assert parse_counters(shown().replace('"128"', f'"{said}"')).block_size is None


def test_what_one_run_counted_is_the_difference() -> None:
    before, after = (
        parse_counters(shown(kv=8.0, done=40.0)),
        parse_counters(shown(kv=12.0, done=44)),
    )
    counts = difference("decode[0]", DECODE_ROLE, before, after)
    assert (counts.name, counts.role, counts.block_size) == ("decode[0]", "decode", 128)
    assert (counts.requests, counts.kv_transfers, counts.kv_bytes) == (4.0, 4.0, 0.0)
    assert (counts.kv_failed, counts.kv_expired) == (0.0, None)
    assert (counts.prompt_tokens, counts.prefix_cache_hits) == (None, None)
    assert counts.restarted is False


def test_a_restart_between_two_looks_is_seen() -> None:
    before, after = parse_counters(shown()), parse_counters(shown(start=1.8e9))
    assert difference("decode[0]", DECODE_ROLE, before, after).restarted is True


def test_a_start_that_is_not_shown_is_not_known() -> None:
    lines = (line for line in shown().splitlines() if "process_start_time" not in line)
    silent = parse_counters("\n".join(lines) + "\n")
    for before, after in ((silent, silent), (silent, parse_counters(shown()))):
        assert difference("decode[0]", DECODE_ROLE, before, after).restarted is None


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += 1


def counters(value: float) -> dict[str, Counters]:
    return {"decode[0]": Counters(counts={"x": value})}


def test_counters_are_looked_at_until_they_stand_still() -> None:
    looks: Iterator[float] = iter([1.0, 2.0, 3.0, 3.0])
    clock = Clock()
    seen = settled(lambda: counters(next(looks)), clock=clock, sleep=clock.sleep)
    assert seen == counters(3.0)
    assert clock.slept == 3


def test_counters_that_never_stand_still_are_taken_as_they_are() -> None:
    clock = Clock()
    seen = settled(lambda: counters(clock.now), clock=clock, sleep=clock.sleep)
    assert seen == counters(clock.now)
    assert clock.now - 100.0 == pytest.approx(SETTLE_S, abs=0.21)


def answering(status: int, text: str) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, text=text)))


def test_an_instance_is_asked_for_its_counters() -> None:
    with answering(200, shown()) as client:
        assert scrape(client, "http://n:1") == parse_counters(shown())


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (401, "no key", "it answered 401 Unauthorized: no key"),
        (503, "", "it answered 503 Service Unavailable"),
        (200, "<html>{</html>", "could not convert string to float: '{</html>'"),
        (200, "a" * (2**24 + 1), "it answered with more than 16 MiB"),
    ],
    ids=["refused", "unavailable", "a page", "too much"],
)
def test_an_instance_without_counters_is_named(status: int, text: str, said: str) -> None:
    with answering(status, text) as client, pytest.raises(PathError) as refused:
        scrape(client, "http://n:1")
    assert str(refused.value) == f"http://n:1/metrics cannot be read: {said}"


ROUTER = """
# TYPE vllm_router_pd_requests_total counter
vllm_router_pd_requests_total{route="/v1/completions"} 7
# TYPE vllm_router_pd_decode_requests_total counter
vllm_router_pd_decode_requests_total{worker="http://a"} 3
vllm_router_pd_decode_requests_total{worker="http://b"} 4
# TYPE vllm_router_worker_health gauge
vllm_router_worker_health{worker="http://a"} 1
"""


def test_a_router_is_asked_for_its_counters() -> None:
    with answering(200, ROUTER) as client:
        assert scrape_router(client, "http://node0:29000") == {
            "vllm_router_pd_requests_total": 7.0,
            "vllm_router_pd_decode_requests_total": 7.0,
        }
    with answering(500, "") as client:
        assert scrape_router(client, "http://node0:29000") == {}
