"""Streamed answers: what an answer is, and what is none, in the server's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_pdserve.serving.answers import Response
from pytest_pdserve.serving.streams import Completion
from pytest_pdserve.serving.streams import read_stream
from pytest_pdserve.values.errors import PathError

URL = "http://node0:8000"


def event(*choices: dict[str, Any], **more: Any) -> str:
    return f"data: {json.dumps({'choices': list(choices), **more})}"


def text_of(said: str) -> dict[str, Any]:
    return {"index": 0, "text": said}


def text(said: str, reason: str | None = None) -> str:
    return event({"index": 0, "text": said, "finish_reason": reason})


USAGE = event(usage={"completion_tokens": 2})
DONE = "data: [DONE]"


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        ([text("a"), "", text(" b", "length"), USAGE, DONE], Completion(text="a b", tokens=2)),
        ([": ping", "event: x", text("a", "stop"), DONE], Completion(text="a", tokens=None)),
        (
            [
                event({"delta": {"role": "assistant"}}),
                event({"delta": {"content": "hi"}, "finish_reason": "length"}),
                USAGE,
            ],
            Completion(text="hi", tokens=2),
        ),
        ([text("a", "length"), event(usage=None)], Completion(text="a", tokens=None)),
        ([event(text_of("a"), error=None), DONE], Completion(text="a", tokens=None)),
        ([text("a"), text(" b"), DONE], Completion(text="a b", tokens=None)),
        ([text("a"), text(" b"), USAGE], Completion(text="a b", tokens=2)),
        (["retry: 10", "id: 7", text("a", "stop")], Completion(text="a", tokens=None)),
    ],
)
def test_an_answer(lines: list[str], answer: Completion) -> None:
    assert read_stream(lines, URL) == answer


FAULT = 'data: {"error": {"message": "KV cache is lost", "code": 500}}'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([text("a"), FAULT], "answered with an error in its stream: KV cache is lost"),
        ([FAULT, text("a", "length")], "answered with an error in its stream: KV cache is lost"),
        ([text("a", "length"), USAGE, FAULT, DONE], "error in its stream: KV cache is lost"),
        (['data: {"error": "out of memory"}'], "error in its stream: out of memory"),
        ([text("a", "error"), DONE], "ended a completion with finish_reason 'error'; expected"),
        ([text("a", "abort")], "ended a completion with finish_reason 'abort'"),
        ([], "ended a completion without text and without a finish_reason"),
        ([text("", "length"), USAGE], "claims 2 tokens and sent no text"),
        (["data: <html>", DONE], "streamed '<html>', which is not a JSON object"),
        (["data: [1]"], "streamed '[1]', which is not a JSON object"),
        ([f"data: {'[' * 100_000}"], f"streamed {'[' * 300!r}, which is not a JSON object"),
        (["<html>", "<p>"], "streamed '<html>', which is not a server-sent event"),
        (["a\x1b[2Jb"], "streamed 'a [2Jb', which is not a server-sent event"),
        (
            [text("a"), text(" b")],
            "stopped in the middle of a completion: no finish_reason, usage or [DONE] after 2 "
            "events",
        ),
        *(
            ([f"data: {json.dumps(odd)}"], "which is not an event of a completion")
            for odd in (
                {"choices": 5},
                {"choices": {"text": "a"}},
                {"choices": ["a"]},
                {"choices": [{"text": 5}]},
                {"choices": [{"delta": "a"}]},
                {"choices": [], "usage": [1]},
                {"choices": [], "usage": {"completion_tokens": "2"}},
            )
        ),
    ],
)
def test_what_is_no_answer_is_told_in_the_servers_words(lines: list[str], said: str) -> None:
    with pytest.raises(PathError) as refused:
        read_stream(lines, URL)
    assert said in str(refused.value)
    assert str(refused.value).startswith(URL)


def test_lines_end_as_events_have_them_and_nowhere_else() -> None:
    odd = {"choices": [text_of("a\u2028b\u0085c")]}
    said = f"data: {json.dumps(odd, ensure_ascii=False)}\r\n\r\n{USAGE}\n\n{DONE}\n\n"
    answered = Response(url=URL, status=200, reason="OK", body=said.encode(), excerpt="")
    assert read_stream(answered.lines, URL) == Completion(text="a\u2028b\u0085c", tokens=2)
