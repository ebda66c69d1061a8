"""Measured requests that were asked again: what follows from what they answer alone."""

from __future__ import annotations

import itertools
import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from pytest_pdserve.clients import precise
from pytest_pdserve.clients import vllm_worker
from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.serving.asking_again import MAX_S
from pytest_pdserve.serving.asking_again import ask_again
from pytest_pdserve.serving.asking_again import why_not_repeated
from pytest_pdserve.serving.near_ties import logprob_gap
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.observation import RepeatedAnswer
from pytest_pdserve.values.observation import RepeatedAnswers
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.result import MeasuredRequest
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

MakeSeen = Callable[..., Observation]
Finding = tuple[str, str]
URL = "http://127.0.0.1:1"


@pytest.fixture
def make_seen(make_result: Callable[..., BenchResult]) -> MakeSeen:
    """A factory of what was seen of a run; ``result`` replaces fields of its result."""

    def make(result: dict[str, Any] | None = None, **fields: Any) -> Observation:
        return Observation(
            topology=Topology.parse("dp"),
            workload=Workload(input_len=512, output_len=256, num_prompts=4),
            result=make_result(**(result or {})),
            **fields,
        )

    return make


def same(index: int) -> RepeatedAnswer:
    return RepeatedAnswer(index=index, measured=f" {index} is what it is", alone=f" {index} is")


def other(index: int, gap: float | None = None, *, restless: bool = False) -> RepeatedAnswer:
    """One whose measured text is another than alone."""
    return RepeatedAnswer(
        index=index,
        measured=f" {index} was what it was",
        alone=f" {index} is",
        again=f" {index} has" if restless else f" {index} is",
        gap_nats=gap,
    )


def answers(*others: RepeatedAnswer) -> RepeatedAnswers:
    """Eight requests, the first of which are *others*."""
    return RepeatedAnswers(answers=(*others, *(same(n) for n in range(len(others), 8))))


def found(seen: Observation) -> list[Finding]:
    return [(f.severity, f.message) for f in check_sanity(seen) if f.check.startswith("answers")]


def said(count: int, restless: int, gaps: str) -> str:
    rows = ", ".join(map(str, range(count)))
    return (
        f"{count} of 8 measured requests (rows {rows}) have a different greedy text when sent "
        f"alone, {restless} differ between two times alone; how much less likely than the top "
        f"token the measured text was: {gaps}"
    )


WRONG = ": what was served under load is wrong"
UNSETTLED = "; too few requests to decide whether load changes answers"


@pytest.mark.parametrize(
    ("repeated", "expected"),
    [
        (None, []),
        (answers(), []),
        (
            answers(*(other(n, 5.0) for n in range(8))),
            [("invalid", said(8, 0, "up to 5 nats (limit 0.5)") + WRONG)],
        ),
        (
            answers(*(other(n, 5.0) for n in range(7))),
            [("invalid", said(7, 0, "up to 5 nats (limit 0.5)") + WRONG)],
        ),
        (
            answers(*(other(n, 5.0) for n in range(6))),
            [("unproven", said(6, 0, "up to 5 nats (limit 0.5)") + UNSETTLED)],
        ),
        (
            answers(other(0, 5.0)),
            [("unproven", said(1, 0, "up to 5 nats (limit 0.5)") + UNSETTLED)],
        ),
        (
            answers(*(other(n) for n in range(8))),
            [("unproven", said(8, 0, "unknown for 8") + UNSETTLED)],
        ),
        (answers(other(0)), [("note", said(1, 0, "unknown for 1"))]),
        (
            answers(*(other(n, 0.25) for n in range(8))),
            [("note", said(8, 0, "up to 0.25 nats (limit 0.5)"))],
        ),
        (
            answers(other(0, 0.25), other(1)),
            [("note", said(2, 0, "up to 0.25 nats (limit 0.5), unknown for 1"))],
        ),
        (
            answers(*(other(n, 5.0, restless=True) for n in range(8))),
            [("note", said(8, 8, "up to 5 nats (limit 0.5)"))],
        ),
        (
            RepeatedAnswers(not_kept="the client does not say"),
            [("note", "no measured request was sent again: the client does not say")],
        ),
        (
            RepeatedAnswers(fault="it hung"),
            [("unproven", "a measured request could not be sent again after the run: it hung")],
        ),
    ],
    ids=[
        *("not greedy", "all the same", "all wrong", "7 wrong", "6 wrong", "1 wrong"),
        *("all differ, nobody says how much", "1 differs", "near ties", "near tie and unknown"),
        *("servers that never repeat themselves", "not kept", "a fault"),
    ],
)
def test_answers_that_differ_from_those_alone(
    repeated: RepeatedAnswers | None, expected: list[Finding], make_seen: MakeSeen
) -> None:
    assert found(make_seen(repeated=repeated)) == expected


@pytest.mark.parametrize(
    ("alone", "severity", "message"),
    [
        (
            (" a", " b", " a"),
            "invalid",
            "all 4 answers are the same text, but 3 of these requests, sent alone, get 2 "
            "different texts: what was served under load is wrong",
        ),
        (
            (" a", " a", " a"),
            "unproven",
            "all 4 answers are the same text, and 3 of these requests, sent alone, get it too: a "
            "wrong answer would not show",
        ),
    ],
    ids=["different alone", "alike alone"],
)
def test_answers_that_are_all_alike_under_load(
    alone: tuple[str, ...], severity: str, message: str, make_seen: MakeSeen
) -> None:
    repeated = RepeatedAnswers(
        answers=tuple(
            RepeatedAnswer(index=n, measured=" a a", alone=text, again=text)
            for n, text in enumerate(alone)
        )
    )
    seen = make_seen(result={"answer_digests": ("a",) * 4}, repeated=repeated)
    assert found(seen) == [(severity, message)]


def test_one_text_under_load_and_another_alone_is_judged_by_how_likely_it_was(
    make_seen: MakeSeen,
) -> None:
    repeated = RepeatedAnswers(
        answers=tuple(
            RepeatedAnswer(index=n, measured=" a a", alone=" b b", again=" b b", gap_nats=5.0)
            for n in range(8)
        )
    )
    seen = make_seen(result={"answer_digests": ("a",) * 4}, repeated=repeated)
    assert found(seen) == [("invalid", said(8, 0, "up to 5 nats (limit 0.5)") + WRONG)]


def test_a_character_whose_bytes_are_not_all_there_is_not_compared() -> None:
    cut = RepeatedAnswer(index=0, measured=" na\u00efve", alone=" na\ufffd", again=" na")
    assert not cut.differs
    assert cut.repeats


def top(**likely: float) -> dict[str, Any]:
    return {"choices": [{"text": "", "logprobs": {"top_logprobs": [likely]}}]}


@pytest.mark.parametrize(
    ("answer", "words", "gap"),
    [
        (top(bado=-0.5, fego=-0.75), " fego bado", 0.25),
        (top(bado=-0.5, fego=-0.75), " bado", 0.0),
        (top(bado=-0.5, fego=-0.75, kulo=-7.5), " gibo", 7.0),
        (top(bado=-0.5, fego=-0.75), "", None),
        (top(bado=-0.5), " bado", None),
        ({"choices": [{"logprobs": {"top_logprobs": [{" ": -1.0, "a": -2.0}]}}]}, "a", None),
        ({"choices": [{"logprobs": None}]}, "a", None),
        ({}, "a", None),
    ],
    ids=["near", "likeliest", "not listed", "no words", "one", "a blank", "none", "no answer"],
)
def test_how_much_less_likely_words_are(
    answer: dict[str, Any], words: str, gap: float | None
) -> None:
    assert logprob_gap(answer, words) == gap


REQUEST = MeasuredRequest(
    index=3,
    prompt="one two",
    fields={"temperature": 0.0, "repetition_penalty": 1.0},
    text=" bado fego",
    tokens=2,
)


def completions(
    asked: list[dict[str, Any]], text: str, *, tells: bool = True, refuses_after: int = 99
) -> Completions:
    """Servers that answer streamed requests with *text*, and may tell how likely tokens are."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append(body)
        if len(asked) > refuses_after:
            return httpx.Response(400, text="no")
        if not body.get("stream"):
            return httpx.Response(200 if tells else 400, json=top(bado=-0.5, kulo=-1.0, fego=-4.5))
        event = {"choices": [{"index": 0, "text": text, "finish_reason": "length"}]}
        return httpx.Response(200, text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")

    return Completions(httpx.Client(transport=httpx.MockTransport(answer)), "model", 10.0)


def test_a_request_is_asked_again_as_it_was_sent_and_without_any_cache() -> None:
    asked: list[dict[str, Any]] = []
    (answer,) = ask_again([REQUEST], URL, completions(asked, " bado fego")).answers
    assert answer == RepeatedAnswer(index=3, measured=" bado fego", alone=" bado fego")
    (body,) = asked
    assert (body["prompt"], body["max_tokens"], body["stream"]) == ("one two", 2, True)
    assert (body["repetition_penalty"], body["cache_salt"]) == (1.0, "alone")


def test_where_a_text_differs_it_is_asked_once_more_and_how_likely_it_is() -> None:
    asked: list[dict[str, Any]] = []
    (answer,) = ask_again([REQUEST], URL, completions(asked, " bado kulo")).answers
    assert (answer.again, answer.gap_nats) == (" bado kulo", 4.0)
    _, gap, again = asked
    assert (gap["prompt"], gap["logprobs"]) == ("one two bado", 20)
    assert (again["prompt"], again["cache_salt"]) == ("one two", "again")


def test_a_server_that_refuses_to_tell_how_likely_tokens_are_is_compared_all_the_same() -> None:
    (answer,) = ask_again([REQUEST], URL, completions([], " bado kulo", tells=False)).answers
    assert answer.differs
    assert answer.gap_nats is None


@pytest.mark.parametrize(
    ("status", "field"), [(400, "not_kept"), (500, "fault")], ids=["refused", "broken"]
)
def test_a_request_that_is_not_answered_again_is_told(status: int, field: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text="no"))
    repeated = ask_again([REQUEST], URL, Completions(httpx.Client(transport=transport), "m", 10.0))
    assert str(status) in getattr(repeated, field)
    assert repeated.answers == ()


def test_a_refusal_after_some_answers_is_told_with_these() -> None:
    repeated = ask_again([REQUEST] * 3, URL, completions([], " bado fego", refuses_after=1))
    assert len(repeated.answers) == 1
    assert "400" in repeated.fault
    assert repeated.not_kept == ""


@pytest.mark.parametrize(("text", "count"), [(" bado fego", 2), (" bado kulo", 8)])
def test_asking_again_ends_after_seconds_unless_a_text_differs(text: str, count: int) -> None:
    seconds = itertools.count(0.0, MAX_S / 2)
    repeated = ask_again([REQUEST] * 8, URL, completions([], text), lambda: next(seconds))
    assert len(repeated.answers) == count


def test_late_and_early_requests_are_sent_again_first() -> None:
    kept = [replace(REQUEST, index=index) for index in (0, 9, 18, 27, 36)]
    repeated = ask_again(kept, URL, completions([], " bado fego"))
    assert [answer.index for answer in repeated.answers] == [36, 0, 27, 9, 18]


FILE = {
    "completed": 2,
    "failed": 0,
    "duration": 1.0,
    "total_input_tokens": 4,
    "total_output_tokens": 4,
    "output_lens": [2, 0],
    "generated_texts": [" a b", ""],
}
KEPT = {"index": 0, "prompt": "one two", "fields": {"temperature": 0}}


def read(kept: Any, **more: Any) -> BenchResult:
    return BenchResult.from_json({**FILE, "kept_requests": kept, **more}, source="x.json")


def test_requests_that_a_client_kept_are_read_if_they_were_answered() -> None:
    result = read([KEPT, {**KEPT, "index": 1}])
    assert result.kept == (
        MeasuredRequest(
            index=0, prompt="one two", fields={"temperature": 0}, text=" a b", tokens=2
        ),
    )
    assert result.kept[0].greedy
    assert "kept_requests" not in result.raw
    (ids,) = read([{**KEPT, "prompt": [5, 6], "fields": {"temperature": 0.7}}]).kept
    assert ids.prompt == (5, 6)
    assert not ids.greedy


@pytest.mark.parametrize(
    "entry",
    [None, {}, {**KEPT, "index": 2}, {**KEPT, "index": -1}, {**KEPT, "prompt": None}, [1]],
    ids=str,
)
def test_what_no_client_keeps_is_refused(entry: Any) -> None:
    with pytest.raises(ClientError, match=r"x\.json: kept_requests has .*, not what it "):
        read([entry])


@pytest.mark.parametrize(
    ("kept", "temperature", "told"),
    [([], "0", True), ([], "0.7", False), ([], None, False), ([], "", False), ([KEPT], "0", False)],
)
def test_a_client_that_does_not_say_what_it_sent_is_named_where_answers_are_greedy(
    kept: list[Any], temperature: str | None, told: bool
) -> None:
    options = {} if temperature is None else {"temperature": temperature}
    repeated = why_not_repeated(read(kept), options, "vllm-command")
    assert (repeated is not None) == told
    if repeated is not None:
        assert repeated.not_kept.startswith(
            "the client vllm-command keeps no requests of such a load"
        )


class Sample:
    """A request of vLLM's client."""

    def __init__(self, prompt: Any, **more: Any) -> None:
        self.prompt = prompt
        vars(self).update(more)


ASKED: dict[str, Any] = {"endpoint_type": "openai", "ignore_eos": True}


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({"input_requests": [Sample("a")] * 48}, [0, 6, 12, 18, 24, 30, 36, 42]),
        ({"input_requests": [Sample("a")] * 3}, [0, 1, 2]),
        ({"input_requests": [Sample([1, 2])]}, [0]),
        ({"input_requests": []}, []),
        ({}, []),
        ({"input_requests": [Sample("a")], "endpoint_type": "openai-chat"}, []),
        ({"input_requests": [Sample("a")], "lora_modules": ["x"]}, []),
        ({"input_requests": [Sample("a", multi_modal_data={"image": 1}), Sample("b")]}, [1]),
        ({"input_requests": [Sample(["a", "b"])]}, []),
    ],
    ids=["48", "3", "token ids", "0", "none", "chat", "LoRA", "an image", "a batch"],
)
def test_the_worker_keeps_eight_requests_that_can_be_asked_again(
    options: dict[str, Any], places: list[int]
) -> None:
    kept = vllm_worker.kept_requests({**ASKED, "extra_body": {"temperature": 0.0}, **options})
    assert [each["index"] for each in kept] == places
    for each in kept:
        assert each["fields"] == {
            "repetition_penalty": 1.0,
            "ignore_eos": True,
            "temperature": 0.0,
        }


@pytest.mark.parametrize(
    ("backend", "temperature", "kept"),
    [
        (
            "openai",
            0.0,
            [{"index": 0, "prompt": "a b", "fields": {"ignore_eos": True, "temperature": 0.0}}],
        ),
        ("vllm", None, [{"index": 0, "prompt": "a b", "fields": {"ignore_eos": True}}]),
        ("openai-chat", 0.0, []),
    ],
    ids=["greedy", "no temperature", "chat"],
)
def test_precise_keeps_what_it_sent(
    backend: str, temperature: float | None, kept: list[dict[str, Any]]
) -> None:
    options = Namespace(backend=backend, temperature=temperature, ignore_eos=True)
    assert precise.kept_requests(options, ["a b"]) == kept
