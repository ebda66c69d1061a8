"""How much less likely a server finds one greedy text than its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

NEAR_TIE = 0.1
"""Nats by which a token may be less likely than the likeliest and still be chosen when the same
sums are made in another order."""
LIKELIEST = 20
"""Tokens of which the server is asked how likely they are: as many as vLLM tells by default."""


def common(a: str, b: str) -> str:
    """Return what two texts begin with, in whole words."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    same = "".join(x for x, _ in pairs)
    return same[: same.rfind(" ")] if " " in same else ""


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
