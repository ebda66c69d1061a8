"""Random prompts of exact lengths, without vLLM."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TRIES = 12


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of a model folder, or of a model on the hub.

    :raises ValueError: if there is none.
    """
    from tokenizers import Tokenizer

    path = Path(name) / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path)) if path.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # its errors have no type of their own
        raise ValueError(f"tokenizer {name!r} cannot be loaded: {error}") from error


def random_prompts(tokenizer: Any, *, lengths: Sequence[int], seed: int) -> list[tuple[str, int]]:
    """Return a text for each length, and the tokens that the server will count in it.

    As vLLM's ``random`` data set does, ids are drawn, decoded and encoded again until the number
    is right; what a tokenizer cannot keep is told by the second value.
    """
    source = random.Random(seed)  # noqa: S311 - prompts, no secret
    size = tokenizer.get_vocab_size(with_added_tokens=False)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    return [_prompt(tokenizer, length, special, (source, size)) for length in lengths]


def _prompt(
    tokenizer: Any, length: int, special: int, drawn: tuple[random.Random, int]
) -> tuple[str, int]:
    source, size = drawn
    wanted = max(1, length - special)
    ids = [source.randrange(size) for _ in range(wanted)]
    text = ""
    for _ in range(_TRIES):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        again = tokenizer.encode(text, add_special_tokens=False).ids
        if len(again) == wanted:
            break
        ids = again[:wanted] + [source.randrange(size) for _ in range(wanted - len(again))]
    return text, len(tokenizer.encode(text, add_special_tokens=False).ids) + special
