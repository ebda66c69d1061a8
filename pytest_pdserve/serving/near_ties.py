"""Compare two greedy texts by the log-probability of the token at which they diverge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

NEAR_TIE = 0.1
"""Largest gap in nats between a token and the likeliest one at which another order of the same
floating-point sums may still choose it."""
LIKELIEST = 20
"""Value of ``logprobs`` in requests: vLLM's default maximum."""


def common_start(a: str, b: str) -> str:
    """Return the common start of two texts, in whole words."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    same = "".join(x for x, _ in pairs)
    return same[: same.rfind(" ")] if " " in same else ""


def logprob_gap(answer: Mapping[str, Any], words: str) -> float | None:
    """Return the gap in nats between the likeliest token and the one that *words* begin with.

    It is a lower bound if *words* begin with none of the tokens that *answer* lists.

    :param answer: completion of one token with ``logprobs``.
    :returns: None if the answer does not contain them.
    """
    try:
        top = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        likely = {str(token).strip(): float(value) for token, value in top.items()}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    if len(likely) < 2 or not words.strip() or not all(map(math.isfinite, likely.values())):
        return None
    if any(not token or "\ufffd" in token for token in likely):
        return None  # a part of a character, or a special token
    matching = [value for token, value in likely.items() if words.strip().startswith(token)]
    return max(likely.values()) - max(matching or [min(likely.values())])
