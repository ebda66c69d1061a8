"""Random prompts of exact lengths, without vLLM."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Distribution of prompt and output lengths, as in vLLM's ``random`` data set."""

    input_len: int
    output_len: int
    prefix_len: int = 0
    """Tokens of a prefix that all prompts share, in addition to *input_len*."""
    input_ratio: float = 0.0
    """Lengths are drawn between ``input_len`` x (1 - ratio) and ``input_len`` x (1 + ratio)."""
    output_ratio: float = 0.0

    def draw(self, requests: int, *, special: int, seed: int) -> list[tuple[int, int]]:
        """Return prompt tokens, without special ones and prefix, and output tokens of each.

        :param special: tokens that the tokenizer adds to each prompt.
        """
        source = random.Random(f"lengths {seed}")  # noqa: S311 - lengths, no secret
        inputs = _around(max(0, self.input_len - special), self.input_ratio)
        outputs = _around(self.output_len, self.output_ratio)
        return [
            (source.randint(*inputs), max(1, source.randint(*outputs))) for _ in range(requests)
        ]


def _around(length: int, ratio: float) -> tuple[int, int]:
    return math.floor(length * (1 - ratio)), math.ceil(length * (1 + ratio))


def parse_ratio(text: str) -> tuple[float, float]:
    """Parse the ratios of input and output from ``0.3`` or ``{"input": 0.3, "output": 0.5}``.

    :raises ValueError: if *text* is neither, or a ratio is not at least 0 and below 1.
    """
    try:
        value = json.loads(text)
        pair = (value["input"], value["output"]) if isinstance(value, dict) else (value, value)
        ratios = float(pair[0]), float(pair[1])
    except (ValueError, KeyError, TypeError):
        ratios = (math.nan, math.nan)
    if not all(0 <= ratio < 1 for ratio in ratios):
        raise ValueError(
            f"--random-range-ratio {text!r}: expected a number of at least 0 and below 1, or "
            '\'{"input": 0.3, "output": 0.5}\''
        )
    return ratios


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model folder, or of a model on the hub.

    :raises ValueError: if it cannot be loaded.
    """
    from tokenizers import Tokenizer

    path = Path(name) / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path)) if path.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # its errors have no type of their own
        raise ValueError(f"tokenizer {name!r} cannot be loaded: {error}") from error


def random_prompts(
    tokenizer: Any, *, lengths: Sequence[int], seed: int, prefix_len: int = 0
) -> list[tuple[str, int]]:
    """Return a text for each length, and the number of tokens that the server will count in it.

    As in vLLM's ``random`` data set, ids are drawn, decoded and encoded again until their number
    is right. With some tokenizers it is not always reached; the second value has the real number.

    :param lengths: tokens of each prompt, without prefix and those that the tokenizer adds.
    """
    source = random.Random(seed)  # noqa: S311 - prompts, no secret
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    drawn = [source.randrange(size) for _ in range(prefix_len)]
    prefix = tokenizer.encode(_prompt(tokenizer, drawn, (source, size)), add_special_tokens=False)
    prompts = []
    for length in lengths:
        ids = [source.randrange(size) for _ in range(length)]
        text = _prompt(tokenizer, prefix.ids[:prefix_len] + ids, (source, size))
        tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
        prompts.append((text, tokens + special))
    return prompts


def _prompt(tokenizer: Any, ids: list[int], drawn: tuple[random.Random, int]) -> str:
    """Return a text that has as many tokens as *ids*, if the tokenizer allows it."""
    (source, size), wanted = drawn, len(ids)
    text = ""
    for _ in range(_TRIES):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        again = tokenizer.encode(text, add_special_tokens=False).ids
        if len(again) == wanted:
            break
        ids = again[:wanted] + [source.randrange(size) for _ in range(wanted - len(again))]
    return text
