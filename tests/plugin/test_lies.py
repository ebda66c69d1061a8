"""Lies that servers tell at HTTP 200, each planted in a stub engine, and named by a session."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.house import House
from tests.support.house import only_sentence

INVALID = "the run of 1p1d, "


def said(house: House, topology: str = "1p1d", *arguments: str) -> str:
    house.suites("sweep")
    result = house.run("--topology", topology, "-rs", *arguments)
    return result.stdout.str()


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (
            {"decode_0": {"foreign": 1}},
            "foreign_requests: decode instances counted 16 requests, 8 were sent: another client "
            "sent 8",
        ),
        (
            {"decode_0": {"prefill_again": True}},
            "prefilled_again: decode instances prefilled 248 of 256 prompt tokens again (96.9%",
        ),
        (
            {"decode_0": {"preempted": 1}},
            "preemptions: decode[0] preempted 8 times (100% of requests); each prefills again on a "
            "decode instance, limit 10%; its KV cache is too small",
        ),
        (
            {"prefill_0": {"failed_after_expiry": 1}},
            "transfers: 8 KV caches were read after they had expired: answers may be wrong",
        ),
        (
            {"decode_0": {"under_load": " bado"}},
            "answers: all 8 answers are the same text, but 4 prompts sent one by one have 4 "
            "different ones: what was served under load is wrong",
        ),
        (
            {"decode_0": {"under_load": ""}},
            "completed: 8 of 8 requests claim 64 tokens and have no text",
        ),
    ],
    ids=["others", "prefill again", "preempted", "read late", "garbage", "no text"],
)
def test_a_lie_is_named(faults: dict[str, Any], message: str, house: House) -> None:
    house.faults(**faults)
    text = said(house)
    assert "the run of 1p1d, random-32-8-n8-c4, stub is invalid:" in text
    assert message in text


def test_a_connector_that_is_off_is_named_before_anything_is_measured(house: House) -> None:
    house.faults(decode_0={"nixl_counters": False})
    text = said(house)
    assert (
        "decode[0] shows no vllm:nixl_xfer_time_seconds_count: the KV connector is off or is not "
        "NixlConnector, so no KV cache is moved"
    ) in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "faults", "notes"),
    [
        (
            "1p1d",
            {"nixl_counters": False, "version": "0.11.0"},
            [
                "decode[0]: 1 of its pairs warm, not proven: decode[0] shows no "
                "vllm:nixl_xfer_time_seconds_count: vLLM 0.11.0 does not count it, 0.12 and later",
                "unproven: decode[0] shows no NIXL counters: vLLM 0.11.0 does not count it",
            ],
        ),
        (
            "dp",
            {"log_stats": False},
            [
                "path not proven: aggregated[0] shows no vllm:request_success_total: "
                "perhaps started ",
                "with --disable-log-stats",
                "unproven: aggregated[0] shows no vllm:request_success_total: perhaps "
                "started with ",
            ],
        ),
    ],
    ids=["an old vLLM", "no statistics"],
)
def test_what_servers_do_not_count_is_unproven(
    topology: str, faults: dict[str, Any], notes: list[str], house: House
) -> None:
    house.faults(every=faults)
    text = said(house, topology)
    for note in notes:
        assert note in text
    assert "1 passed" in text
    strict = house.run("--topology", topology, "--pdserve-strict", "-k", "32-8")
    strict.assert_outcomes(failed=1, deselected=1)


def test_a_server_of_the_session_that_does_not_show_its_start_has_not_restarted(
    house: House,
) -> None:
    house.faults(every={"start_time": False})
    assert "has no metric of its process's start time" not in said(house, "dp")
    (record,) = house.records()
    assert [each["restarted"] for each in record["served"]] == [False]


def test_a_load_that_does_not_fit_is_refused_before_the_start(house: House) -> None:
    house.suites("sweep")
    house.system(model={"serve_args": ["--max-model-len", "39"]})
    sentence = only_sentence(house.run("--topology", "1p1d"))
    assert "a request has up to 40 tokens, but instances take 39 (--max-model-len of " in sentence


def test_a_run_without_an_answer_says_only_that(house: House) -> None:
    house.faults(decode_0={"fail_streams": True})
    text = said(house)
    assert "completed: none of 8 requests completed, 8 failed; first error: ValueError: 500" in text
    assert "zeros" not in text
