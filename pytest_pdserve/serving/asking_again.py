"""A sample of the measured requests, asked again with nothing else in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

from pytest_pdserve.serving.answers import RefusedError
from pytest_pdserve.serving.near_ties import LIKELIEST
from pytest_pdserve.serving.near_ties import common
from pytest_pdserve.serving.near_ties import gap_of
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.observation import RepeatedAnswer
from pytest_pdserve.values.observation import RepeatedAnswers
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.result import MeasuredRequest

MAX_TOKENS = 8
"""Tokens of an answer that are asked for again: the more, the more texts part by a near tie."""
MAX_S = 5.0
"""Seconds after which no further request is asked again, unless a text differs."""


def ask_again(
    kept: Sequence[MeasuredRequest],
    url: str,
    completions: Completions,
    clock: Callable[[], float] = time.monotonic,
) -> RepeatedAnswers:
    """Ask each of *kept* alone; where its text differs, once more, and how likely the other is.

    Answers are salted, so that none is made of what a measured request left in a prefix cache.
    """
    began = clock()
    answers: list[RepeatedAnswer] = []
    for request in kept:
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
    """Return :attr:`.RepeatedAnswer.gap_nats`; prompts of token ids cannot be continued by text."""
    if not isinstance(request.prompt, str):
        return None
    same = common(alone, request.text)
    fields = {**request.fields, "cache_salt": "gap", "logprobs": LIKELIEST}
    try:
        answer = completions.ask(url, request.prompt + same, tokens=1, **fields)
    except RefusedError:
        return None  # a server that does not tell how likely tokens are
    return gap_of(answer, request.text[len(same) :])


def why_not_asked(
    result: BenchResult, options: Mapping[str, str], kind: str
) -> RepeatedAnswers | None:
    """Return why no request of *result* can be asked again; None if answers are not greedy.

    :param options: that the client got.
    :param kind: of the client.
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
