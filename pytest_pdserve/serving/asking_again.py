"""Send a sample of the measured requests again, with no other request in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

from pytest_pdserve.serving.answers import RefusedError
from pytest_pdserve.serving.near_ties import LIKELIEST
from pytest_pdserve.serving.near_ties import common_start
from pytest_pdserve.serving.near_ties import logprob_gap
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.observation import RepeatedAnswer
from pytest_pdserve.values.observation import RepeatedAnswers
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.result import MeasuredRequest

MAX_TOKENS = 8
"""Tokens that are generated again: with more tokens, more texts diverge at a near tie."""
MAX_S = 1.5
"""Seconds after which no further request is sent, unless a text differs."""


def ask_again(
    kept: Sequence[MeasuredRequest],
    url: str,
    completions: Completions,
    clock: Callable[[], float] = time.monotonic,
) -> RepeatedAnswers:
    """Send each request of *kept* alone, and compare its text with the measured one.

    The last and the first come first: a fault may begin late in a load, and the time may not
    suffice for all. Where the texts differ, it is sent once more, and the server is asked for the
    log-probability of the measured text. A ``cache_salt`` keeps the requests from hitting the
    prefix cache.
    """
    began = clock()
    answers: list[RepeatedAnswer] = []
    for request in _outside_in(kept):
        if clock() - began > MAX_S and not any(answer.differs for answer in answers):
            break
        try:
            answers.append(_ask_again(request, url, completions))
        except RefusedError as error:
            if not answers:
                return RepeatedAnswers(not_kept=str(error))
            return RepeatedAnswers(answers=tuple(answers), fault=str(error))
        except PathError as error:
            return RepeatedAnswers(answers=tuple(answers), fault=str(error))
    return RepeatedAnswers(answers=tuple(answers))


def _outside_in(kept: Sequence[MeasuredRequest]) -> list[MeasuredRequest]:
    """Return the last, the first, the last but one, the second, and so on."""
    return [kept[n // 2] if n % 2 else kept[-1 - n // 2] for n in range(len(kept))]


def _ask_again(request: MeasuredRequest, url: str, completions: Completions) -> RepeatedAnswer:
    def ask(salt: str) -> str:
        fields = {**request.fields, "cache_salt": salt}
        tokens = min(MAX_TOKENS, request.tokens)
        return completions.stream(url, request.prompt, tokens=tokens, **fields).text

    answer = RepeatedAnswer(index=request.index, measured=request.text, alone=ask("alone"))
    if not answer.differs:
        return answer
    gap = _ask_gap(request, answer.alone, url, completions)
    return replace(answer, again=ask("again"), gap_nats=gap)


def _ask_gap(
    request: MeasuredRequest, alone: str, url: str, completions: Completions
) -> float | None:
    """Return :attr:`.RepeatedAnswer.gap_nats`; None for prompts of token ids."""
    if not isinstance(request.prompt, str):
        return None
    same = common_start(alone, request.text)
    fields = {**request.fields, "cache_salt": "gap", "logprobs": LIKELIEST}
    try:
        answer = completions.ask(url, request.prompt + same, tokens=1, **fields)
    except RefusedError:
        return None  # the server does not support logprobs
    return logprob_gap(answer, request.text[len(same) :])


def why_not_repeated(
    result: BenchResult, options: Mapping[str, str], kind: str
) -> RepeatedAnswers | None:
    """Return why no request of *result* can be sent again; None if answers are not greedy.

    :param options: further options of the client.
    :param kind: kind of the client.
    """
    try:
        greedy = float(options.get("temperature", "")) == 0
    except ValueError:
        greedy = False
    if result.kept or not result.completed or not greedy:
        return None
    return RepeatedAnswers(
        not_kept=f"the client {kind} keeps no requests of such a load; vllm and precise keep text "
        "completions"
    )
