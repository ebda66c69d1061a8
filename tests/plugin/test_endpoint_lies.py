"""Endpoints that answer with HTTP 200 and are wrong: each run is invalid, and says why."""

from __future__ import annotations

import pytest

from tests.support.endpoints import MODEL
from tests.support.endpoints import completions
from tests.support.endpoints import endpoint
from tests.support.endpoints import models
from tests.support.endpoints import page
from tests.support.endpoints import sending
from tests.support.house import House

WAYS = [
    pytest.param(
        "garbage",
        "completed: none of 8 requests completed, 8 failed; first error: no chunk; a single "
        "prompt, sent alone: {url} streamed '\ufffd<html> [31m', which is not a server-sent event",
        id="garbage",
    ),
    pytest.param(
        "stops",
        "answers: a prompt sent alone after the run: {url} stopped in the middle of a "
        "completion: no finish_reason, usage or [DONE] after 8 events",
        id="stops in the middle",
    ),
    pytest.param(
        "one chunk of 10 MB",
        "answers: a prompt sent alone after the run: {url}/v1/completions answered with more "
        "than 1 MiB",
        id="10 MB in one chunk",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "redirect loop",
        "completed: none of 8 requests completed, 8 failed; first error: ValueError: 307 Temporary "
        "Redirect; a single prompt, sent alone: {url}/v1/completions answered 307 with a redirect "
        "to /v1/completions; redirects are not followed, name the endpoint's own URL",
        id="redirect loop",
    ),
    pytest.param(
        "same_token",
        "answers: 4 prompts sent one by one have 64 output tokens by the server's usage, but it "
        "counts 4 in their texts, sent back as prompts: they consist of '!' alone, as with broken "
        "weights",
        id="one token for everything",
    ),
    pytest.param(
        "cut_text",
        "answers: 4 prompts sent one by one have 64 output tokens by the server's usage, but it "
        "counts 32 in their texts, sent back as prompts: text is missing",
        id="half of the text",
    ),
    pytest.param(
        "error_end",
        "answers: a prompt sent alone after the run: {url} answered with an error in its "
        "stream: engine stopped",
        id="an error after the text",
    ),
    *(
        pytest.param(way, said, id=way, marks=pytest.mark.slow)
        for way, said in {
            "error_mid": "answers: a prompt sent alone after the run: {url} answered with an "
            "error in its stream: engine stopped",
            "length_stop": "answers: a prompt sent alone after the run: {url} ended a "
            "completion with finish_reason 'error'; expected length or stop",
            "empty_text": "completed: 8 of 8 requests claim 64 tokens and have no text",
            "refuse_busy": "completed: 4 of 8 requests completed, 4 failed; first error: "
            "ValueError: 503 Service Unavailable",
        }.items()
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "said"), WAYS)
def test_a_lying_endpoint_makes_the_run_invalid_and_is_named(
    way: str, said: str, house: House
) -> None:
    house.suites("sweep")
    with endpoint({"/v1/completions": completions(way)}) as server:
        result = house.run("--topology", "dp", "--pdserve-base-url", server.url, "-k", "32-8")
        expected = said.format(url=server.url)
    result.assert_outcomes(errors=1)
    assert "the run of dp, random-32-8-n8-c4, stub is invalid:" in result.outlines
    assert [line for line in result.outlines if line.startswith(f"  {expected}")]


@pytest.mark.parametrize("way", ["", "cached"])
def test_an_endpoint_that_answers_right_is_valid(way: str, house: House) -> None:
    house.suites("sweep")
    with endpoint({"/v1/completions": completions(way)}) as server:
        result = house.run("--topology", "dp", "--pdserve-base-url", server.url, "-k", "32-8")
    result.assert_outcomes(passed=1)
    assert f"pdserve dp: endpoint {server.url} serves {MODEL}, " in " ".join(result.outlines)


def test_a_fault_of_one_request_in_four_is_met_by_four_prompts_in_a_row(house: House) -> None:
    house.suites("sweep")
    with endpoint() as server:
        house.run("--topology", "dp", "--pdserve-base-url", server.url, "-k", "32-8")
    assert server.streamed[-8:] == [True] * 4 + [False] * 4


def test_the_client_asks_for_the_model_that_the_endpoint_names(house: House) -> None:
    house.suites("sweep")
    with endpoint({"/v1/models": models("first", "second")}) as server:
        named = ("--pdserve-base-url", f"{server.url}/v1/", "--pdserve-model", "second")
        house.run("--topology", "dp", *named, "-k", "32-8").assert_outcomes(passed=1)
    (record,) = house.records()
    argv = record["processes"][0]["argv"]
    assert record["endpoint"] == server.url
    assert argv[argv.index("--model") + 1] == "second"
    assert argv[argv.index("--tokenizer") + 1] == str(house.path / "model")


def test_an_endpoint_that_never_stops_is_bounded_and_named(house: House) -> None:
    house.suites("sweep")
    house.system(limits={"bench_start_s": 1, "slowest_tok_s": 1000, "warmup_s": 0.5})
    with endpoint({"/v1/completions": completions("endless")}) as server:
        result = house.run("--topology", "dp", "--pdserve-base-url", server.url, "-k", "32-8")
    result.assert_outcomes(errors=1)
    said = f"a single prompt, sent alone: {server.url}/v1/completions did not answer within 0.5 s"
    assert said in result.outlines


def test_an_instance_whose_counters_never_end_is_named(house: House) -> None:
    house.suites("sweep")
    with endpoint() as server, endpoint({"/metrics": sending(None)}) as instance:
        result = house.run(
            *("--topology", "dp", "--pdserve-base-url", server.url),
            *("--pdserve-instance-url", f"aggregated={instance.url}", "-k", "32-8"),
        )
    result.assert_outcomes(errors=1)
    said = f"{instance.url}/metrics cannot be read: it answered with more than 16 MiB"
    assert said in result.outlines


def test_a_refused_completion_is_told_before_the_client_runs(house: House) -> None:
    house.suites("sweep")
    house.monkeypatch.setenv("PDSERVE_API_KEY", "open-sesame")
    with endpoint({"/v1/completions": page(401, b"wrong key open-sesame")}) as server:
        result = house.run("--topology", "dp", "--pdserve-base-url", server.url, "-k", "32-8")
    result.assert_outcomes(errors=1)
    assert (
        f"{server.url}/v1/completions answered 401 Unauthorized: wrong key <API key>; the key in "
        "PDSERVE_API_KEY is not accepted"
    ) in result.outlines
    assert "open-sesame" not in result.stdout.str()
    assert list(house.runs.rglob("*.log")) == []
