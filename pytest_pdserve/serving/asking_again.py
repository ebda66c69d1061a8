"""A sample of the measured requests, asked again with nothing else in flight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from pytest_pdserve.serving.answers import RefusedError
from pytest_pdserve.serving.smoke import common
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.observation import RepeatedAnswer
from pytest_pdserve.values.observation import RepeatedAnswers
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.result import MeasuredRequest

MAX_TOKENS = 32
"""Tokens of an answer that are asked for again: the more, the more texts part by a near tie."""
MAX_S = 5.0
"""Seconds after which no further request is asked again."""
_LIKELIEST = 5
"""Tokens of which the server is asked how likely they are."""


def ask_again(
    kept: Sequence[MeasuredRequest],
    url: str,
    completions: Completions,
    clock: Callable[[], float] = time.monotonic,
) -> RepeatedAnswers:
    """Ask each of *kept* alone twice, and again where its text differs: how likely is that.

    Answers are salted, so that none is made of what a measured request left in a prefix cache.
    """
    began = clock()
    answers: list[RepeatedAnswer] = []
    for request in kept:
        if answers and clock() - began > MAX_S:
            break
        try:
            answers.append(_ask_again(request, url, completions))
        except RefusedError as error:
            return RepeatedAnswers(answers=tuple(answers), not_kept=str(error))
        except PathError as error:
            return RepeatedAnswers(answers=tuple(answers), fault=str(error))
    return RepeatedAnswers(answers=tuple(answers))


def _ask_again(request: MeasuredRequest, url: str, completions: Completions) -> RepeatedAnswer:
    alone, again = (
        completions.stream(
            url,
            request.prompt,
            tokens=min(MAX_TOKENS, request.tokens),
            **{**request.fields, "cache_salt": salt},
        ).text
        for salt in ("alone", "again")
    )
    answer = RepeatedAnswer(index=request.index, measured=request.text, alone=alone, again=again)
    if not answer.differs or not isinstance(request.prompt, str):
        return answer
    same = common(alone, request.text)
    gap = gap_of(
        completions.ask(
            url,
            request.prompt + same,
            tokens=1,
            **{**request.fields, "cache_salt": "gap", "logprobs": _LIKELIEST},
        ),
        request.text[len(same) :],
    )
    return RepeatedAnswer(
        index=request.index, measured=request.text, alone=alone, again=again, gap_nats=gap
    )


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
        not_kept=f"the client {kind} does not say what it sent; vllm and precise do of text "
        "completions"
    )


def gap_of(answer: Mapping[str, Any], words: str) -> float | None:
    """Return by how many nats *words* begin less likely than with the likeliest token.

    It is a lower bound where none of the tokens that *answer* lists begins them.

    :param answer: completion of one token with its likeliest alternatives.
    :returns: None if the answer does not say it.
    """
    try:
        top = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        likely = {str(token).strip(): float(value) for token, value in top.items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    if len(likely) < 2 or not words.strip() or not all(map(math.isfinite, likely.values())):
        return None
    if any(not token or "\ufffd" in token for token in likely):
        return None  # a part of a character, or none that a text shows
    found = [value for token, value in likely.items() if words.strip().startswith(token)]
    return max(likely.values()) - max(found or [min(likely.values())])
