"""The client ``precise``: when requests are due, what an answer is, what is computed of it."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest

from pytest_pdserve.clients.answer import Answer
from pytest_pdserve.clients.arrivals import Arrivals
from pytest_pdserve.clients.connection import Sent
from pytest_pdserve.clients.load import Sending
from pytest_pdserve.clients.prompts import Lengths
from pytest_pdserve.clients.prompts import parse_ratio
from pytest_pdserve.clients.result import result_of

MS = 1_000_000


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def chunk(text: str = " a", reason: str | None = None) -> bytes:
    return event(choices=[{"text": text, "finish_reason": reason}])


def usage(tokens: int) -> bytes:
    return event(choices=[], usage={"completion_tokens": tokens})


DONE = b"data: [DONE]\n\n"


# Arrivals.


def test_without_a_rate_all_are_due_at_once() -> None:
    assert Arrivals().due_s(3, seed=1) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 5.0, math.inf])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_seed_offers_the_same_rate(burstiness: float, seed: int) -> None:
    due = Arrivals(request_rate=8.0, burstiness=burstiness).due_s(64, seed=seed)
    assert due == sorted(due)
    assert due[-1] == pytest.approx(64 / 8.0)


def test_gaps_have_the_variation_that_burstiness_asks_for() -> None:
    def variation(burstiness: float) -> float:
        due = Arrivals(request_rate=1.0, burstiness=burstiness).due_s(20_000, seed=3)
        gaps = [after - before for before, after in itertools.pairwise(due)]
        mean = sum(gaps) / len(gaps)
        return math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean

    assert variation(1.0) == pytest.approx(1.0, rel=0.05)
    assert variation(4.0) == pytest.approx(0.5, rel=0.05)
    assert variation(math.inf) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("strategy", "middle"), [("linear", 5.5), ("exponential", 10**0.5)])
def test_a_ramp_goes_from_the_first_rate_to_the_last(strategy: str, middle: float) -> None:
    ramp = Arrivals(burstiness=math.inf, ramp_up=strategy, start_rps=1, end_rps=10)
    due = [0.0, *ramp.due_s(101, seed=0)]
    rates = [1 / (after - before) for before, after in itertools.pairwise(due)]
    assert [rates[0], rates[50], rates[-1]] == pytest.approx([1.0, middle, 10.0])


# Answers.


def answered(*parts: bytes, status: int = 200) -> Answer:
    answer = Answer()
    answer.status = status
    for number, part in enumerate(parts):
        answer.feed(part, (number + 1) * MS)
    answer.end()
    return answer


def test_each_chunk_has_the_time_at_which_it_arrived() -> None:
    answer = answered(chunk(), chunk(), chunk(reason="length") + usage(3) + DONE)
    assert list(answer.chunks_ns) == [MS, 2 * MS, 3 * MS]
    assert (answer.tokens, answer.text, answer.error, answer.done) == (3, " a a a", "", True)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_an_event_that_arrives_in_parts_counts_once_when_it_is_whole(cut: int) -> None:
    whole = chunk()
    answer = answered(whole[:cut], whole[cut:], usage(1) + DONE)
    assert list(answer.chunks_ns) == [2 * MS]


def test_lines_may_end_in_cr_lf() -> None:
    answer = answered(chunk().replace(b"\n", b"\r\n"), (chunk() + DONE).replace(b"\n", b"\r\n"))
    assert len(answer.chunks_ns) == 2


def test_chunks_that_are_read_together_are_counted() -> None:
    assert answered(chunk() + chunk() + chunk(), usage(3) + DONE).merged == 2


def test_chat_answers_have_their_text_in_a_delta() -> None:
    said = event(choices=[{"delta": {"content": "hi"}}])
    assert answered(said, DONE).text == "hi"


@pytest.mark.parametrize(
    ("parts", "status", "why"),
    [
        ((b'{"error": "busy"}',), 503, 'HTTP 503: {"error": "busy"}'),
        ((chunk(), event(error={"message": "dead"})), 200, "error in the stream: dead"),
        ((event(error="dead"),), 200, "error in the stream: dead"),
        ((chunk(reason="error"), DONE), 200, "finish_reason 'error'"),
        ((usage(4), DONE), 200, "the answer has no chunk"),
        ((), 200, "the answer has no chunk"),
        (
            (b"data: {garbage\n\n",),
            200,
            "streamed b'{garbage', which is not an event of a completion",
        ),
    ],
    ids=["refused", "error-object", "error-text", "reason", "usage-only", "empty", "garbage"],
)
def test_what_is_no_answer_fails_in_the_servers_words(
    parts: tuple[bytes, ...], status: int, why: str
) -> None:
    assert answered(*parts, status=status).error == why


# Results.


def sent(index: int, written_ms: float, *chunks_ms: float, tokens: int, error: str = "") -> Sent:
    answer = Answer()
    answer.chunks_ns.extend(int(at * MS) for at in chunks_ms)
    answer.tokens, answer.error = tokens, error
    return Sent(
        index=index,
        due_ns=0,
        ready_ns=0,
        written_ns=int(written_ms * MS),
        answer=answer,
        max_bytes=1 << 20,
    )


def result(*requests: Sent, **given: Any) -> dict[str, Any]:
    sending = Sending(
        sent=requests,
        began_ns=0,
        ended_ns=2_000 * MS,
        cpu_s=0.5,
        late_ns=(MS, 2 * MS),
        by_kernel=given.get("by_kernel", 1.0),
        step_ns=given.get("step_ns", 0),
    )
    return result_of(
        sending,
        prompt_tokens=[10] * len(requests),
        percentiles=[50.0, 99.0],
        goodput_ms=given.get("goodput_ms", {}),
        load_fields={"num_prompts": len(requests)},
    )


def test_times_are_those_of_vllms_definitions() -> None:
    found = result(
        sent(0, 100, 300, 320, 350, tokens=3),
        sent(1, 200, 300, 400, tokens=5),
        sent(2, 200, tokens=4, error="HTTP 503"),
    )
    assert (found["completed"], found["failed"]) == (2, 1)
    assert found["ttfts"] == [0.2, 0.1, 0.0]
    assert found["mean_ttft_ms"] == pytest.approx(150)
    assert found["mean_itl_ms"] == pytest.approx((20 + 30 + 100) / 3)
    assert found["mean_tpot_ms"] == pytest.approx((50 / 2 + 100 / 4) / 2)
    assert found["mean_e2el_ms"] == pytest.approx((250 + 200) / 2)
    assert found["p99_ttft_ms"] == pytest.approx(199)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (20, 8)
    assert found["output_throughput"] == pytest.approx(4.0)
    assert found["output_lens"] == [3, 5, 0]


def test_tokens_that_came_several_in_a_chunk_are_counted() -> None:
    assert result(sent(0, 0, 100, 200, tokens=5))["tokens_beyond_chunks"] == 3


def test_goodput_counts_requests_that_keep_every_limit() -> None:
    requests = (sent(0, 0, 100, 200, tokens=2), sent(1, 0, 150, 200, tokens=2))
    assert result(*requests, goodput_ms={"ttft": 120})["request_goodput"] == 0.5
    assert result(*requests, goodput_ms={"ttft": 120, "e2el": 150})["request_goodput"] == 0.0
    assert result(*requests)["request_goodput"] is None


def test_the_client_says_how_late_it_was() -> None:
    found = result(sent(0, 30, 100, tokens=1))
    assert found["client_max_send_late_ms"] == 30
    assert found["client_p99_read_late_ms"] == 2.0
    assert found["client_cpu_cores"] == 0.25
    assert found["client_clock"] == "kernel"


# What its lateness moves.

CERTAIN = {
    "mean_ttft_ms": 0,
    "p99_ttft_ms": 0,
    "mean_itl_ms": 0,
    "mean_tpot_ms": 0,
    "mean_e2el_ms": 0,
    "output_throughput": 0,
}


def in_doubt(request: Sent, *doubts: tuple[int, int, int]) -> Sent:
    request.answer.uncertain.extend((first, count, ns * MS) for first, count, ns in doubts)
    return request


def due_at(request: Sent, due_ms: float, ready_ms: float) -> Sent:
    request.due_ns, request.ready_ns = int(due_ms * MS), int(ready_ms * MS)
    return request


MOVED: dict[str, tuple[tuple[Sent, ...], dict[str, Any], dict[str, float]]] = {
    "all-certain": ((sent(0, 0, 200, 300, 400, tokens=3),), {}, {}),
    "first-chunk-read-with-the-next": (
        (in_doubt(sent(0, 0, 200, 200, 400, tokens=3), (0, 1, 10)),),
        {},
        {
            "mean_ttft_ms": 0.05,
            "p99_ttft_ms": 0.05,
            "mean_itl_ms": 0.05,
            "mean_tpot_ms": 0.05,
        },
    ),
    "later-chunk-read-with-the-next": (
        (in_doubt(sent(0, 0, 200, 300, 300, 400, tokens=4), (1, 1, 20)),),
        {},
        {"p99_itl_ms": 0.004},
    ),
    "user-space-clock": (
        (in_doubt(sent(0, 0, 200, 300, tokens=2), (0, 1, 10), (1, 1, 10)),),
        {},
        {"mean_ttft_ms": 0.05, "p99_ttft_ms": 0.05, "mean_e2el_ms": 10 / 300},
    ),
    "sent-late-at-a-rate": (
        (
            due_at(sent(0, 0, 200, 300, tokens=2), 0, 0),
            due_at(sent(1, 110, 310, 410, tokens=2), 100, 100),
        ),
        {},
        {"mean_ttft_ms": 0.025, "p99_ttft_ms": 0.0495, "mean_e2el_ms": 5 / 300},
    ),
    "connection-free-and-nothing-sent": (
        (
            due_at(sent(0, 0, 200, 300, tokens=2), 0, 0),
            due_at(sent(1, 310, 500, 600, tokens=2), 0, 300),
        ),
        {},
        {"output_throughput": 10 / 300},
    ),
    "clock-that-is-set": (
        (sent(0, 0, 200, 300, 400, tokens=3),),
        {"step_ns": 5 * MS},
        {
            "mean_ttft_ms": 4 / 200,
            "p99_ttft_ms": 4 / 200,
            "mean_itl_ms": 4 / 100,
            "mean_tpot_ms": 4 / 100,
            "mean_e2el_ms": 4 / 400,
            "output_throughput": 4 / 2000,
        },
    ),
}


@pytest.mark.parametrize(("requests", "given", "moved"), MOVED.values(), ids=MOVED)
def test_the_client_says_which_metrics_its_lateness_moves(
    requests: tuple[Sent, ...], given: dict[str, Any], moved: dict[str, float]
) -> None:
    shares = result(*requests, **given)["client_lateness_share"]
    expected = {**CERTAIN, **moved}
    assert {name: shares[name] for name in expected} == pytest.approx(expected, abs=2e-6)


def test_chunks_that_were_read_together_came_at_the_earliest_evenly_before() -> None:
    request = in_doubt(sent(0, 0, 200, 300, 300, 300, tokens=4), (1, 2, 40))
    assert [at // MS for at in request.answer.earliest_ns()] == [200, 260, 280, 300]


def test_no_chunk_came_before_the_one_before_it() -> None:
    request = in_doubt(sent(0, 0, 200, 210, 210, tokens=3), (1, 1, 40))
    assert [at // MS for at in request.answer.earliest_ns()] == [200, 200, 210]


# Lengths.


@pytest.mark.parametrize(
    ("text", "ratios"), [("0.3", (0.3, 0.3)), ('{"input": 0, "output": 0.5}', (0.0, 0.5))]
)
def test_a_ratio_is_a_number_or_one_of_input_and_one_of_output(
    text: str, ratios: tuple[float, float]
) -> None:
    assert parse_ratio(text) == ratios


@pytest.mark.parametrize("text", ["1", "-0.1", "much", '{"input": 0.1}', "[0.1, 0.1]", "null"])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--random-range-ratio .* expected a number"):
        parse_ratio(text)


def test_lengths_are_drawn_from_both_sides_of_what_is_asked() -> None:
    asked = Lengths(input_len=102, output_len=10, input_ratio=0.25, output_ratio=0.95)
    inputs, outputs = zip(*asked.draw(5000, special=2, seed=1), strict=True)
    assert (min(inputs), max(inputs)) == (75, 125)
    assert (min(outputs), max(outputs)) == (1, 20)


def test_without_a_ratio_all_lengths_are_those_asked() -> None:
    assert set(Lengths(input_len=102, output_len=10).draw(9, special=2, seed=1)) == {(100, 10)}
