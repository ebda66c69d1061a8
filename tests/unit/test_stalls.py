"""The longest time in which an engine had work and made no token, from looks at its counters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

import pytest

from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.stalls import EngineWork
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.serving.stalls import read_work
from pytest_pdserve.serving.stalls import watching_stalls

TWO_ENGINES = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 1.0
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 512.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 30.0
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="m"} 20.0
vllm:generation_tokens_total{engine="1",model_name="m"} 0.0
"""


def test_the_work_of_each_engine_is_read_by_itself() -> None:
    assert read_work(TWO_ENGINES) == {
        "0": EngineWork(532.0, 3.0, 1.0, generated=20.0),
        "1": EngineWork(30.0, 0.0),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing here\n",
        "vllm:prompt_tokens_total 5\n",  # no requests
        "vllm:num_requests_running 5\n",  # no tokens
        "vllm:num_requests_running five\nvllm:prompt_tokens_total 1\n",
    ],
)
def test_what_shows_no_work_has_none(text: str) -> None:
    assert read_work(text) == {}


@pytest.mark.parametrize(
    ("looks", "longest"),
    [
        ([(0, 5, 1)], 0),
        ([(0, 5, 1), (1, 5, 1), (2, 5, 1), (3, 9, 1)], 2),
        ([(0, 5, 1), (1, 6, 1), (2, 7, 1)], 0),
        ([(0, 5, 0), (9, 5, 0)], 0),  # nothing to do
        ([(0, 5, 0), (9, 5, 1), (10, 5, 1)], 1),  # nobody knows when the request came
        ([(0, 5, 1), (9, 5, 0), (10, 5, 1), (11, 5, 1)], 1),
        ([(0, 5, 1), (20, 5, 1)], 20),  # nobody answered in between
        ([(0, 5, 1), (4, 5, 1), (5, 6, 1), (7, 6, 1)], 4),
        ([(0, 5, 1), (1, 0, 1), (4, 0, 1)], 3),  # restarted
    ],
)
def test_a_stall_is_never_longer_than_it_was(
    looks: Sequence[tuple[float, float, float]], longest: float
) -> None:
    stalls = Stalls()
    for at, tokens, requests in looks:
        stalls.add_sample("decode[0]", at, {"0": EngineWork(tokens, requests)})
    assert stalls.longest_s == {"decode[0]": longest}


def test_one_engine_of_two_that_stands_still_is_a_stall() -> None:
    stalls = Stalls()
    for at in range(6):
        work = {"0": EngineWork(7, 1), "1": EngineWork(at, 1)}
        stalls.add_sample("decode[0]", float(at), work)
        stalls.add_sample("decode[1]", float(at), {"0": EngineWork(at, 1)})
    stalls.add_sample("decode[2]", 0.0, {})
    assert stalls.longest_s == {"decode[0]": 5.0, "decode[1]": 0.0}


FINISHED = """\
vllm:request_success_total{engine="0",finished_reason="length"} 40.0
vllm:request_success_total{engine="0",finished_reason="stop"} 2.0
vllm:request_success_total{engine="1",finished_reason="stop"} 7.0
"""


def test_finished_requests_are_those_of_all_engines_and_reasons() -> None:
    stalls = Stalls()
    stalls.add_sample("decode[0]", 1.0, read_work(TWO_ENGINES + FINISHED))
    assert stalls.finished("decode[0]") == 49
    assert stalls.finished("decode[1]") is None


def seen(*looks: tuple[float, float, float, float]) -> Stalls:
    """What looks at one engine show: each a time, tokens, requests, and how many of these wait."""
    stalls = Stalls()
    for at, tokens, requests, waiting in looks:
        stalls.add_sample("decode[0]", at, {"0": EngineWork(tokens, requests, waiting)})
    return stalls


@pytest.mark.parametrize(
    ("stalls", "words"),
    [
        (seen((0, 5, 4, 1), (1, 9, 4, 1)), "decode[0] has 3 running and 1 waiting requests"),
        (
            seen((0, 5, 4, 1), (1, 5, 4, 1), (9, 5, 4, 1)),
            "decode[0] has 3 running and 1 waiting requests and has made no token for 10 s (since "
            "11:59:50)",
        ),
        (seen((0, 5, 4, 0), (9, 5, 0, 0)), "decode[0] has no request"),
        (
            seen((-60, 5, 2, 0), (-50, 5, 2, 0)),
            "decode[0] has 2 running and 0 waiting requests and has made no token for 70 s (since "
            "11:58:50), and has not answered /metrics for 60 s",
        ),
    ],
    ids=["moves", "stands still", "idle", "silent"],
)
def test_what_an_instance_was_doing_is_told_in_words(stalls: Stalls, words: str) -> None:
    (standing,) = stalls.activities(10.0)
    assert standing.text(datetime(2026, 11, 27, 12)) == words


def test_an_instance_that_never_answered_is_not_told() -> None:
    stalls = Stalls()
    stalls.add_sample("decode[0]", 0.0, {})
    assert stalls.activities(10.0) == []


def test_a_thread_looks_until_the_run_is_over() -> None:
    asked: list[str] = []

    def ask(url: str) -> str:
        asked.append(url)
        if len(asked) % 3 == 0:
            raise AnswerError(url, "is busy")
        return TWO_ENGINES

    server = Server(name="decode[0]", role="decode", url="http://127.0.0.1:1", process=None)
    with watching_stalls([server], ask, every_s=0.001) as stalls:
        limit = time.monotonic() + 20
        while stalls.longest_s.get("decode[0]", 0.0) <= 0 and time.monotonic() < limit:
            time.sleep(0.01)
    seen = len(asked)
    time.sleep(0.02)
    assert len(asked) == seen
    assert stalls.longest_s["decode[0]"] > 0
