"""A tokenizer of 101 words, for clients that make prompts."""

from __future__ import annotations

from pathlib import Path


def write_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` into *folder*."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({f"w{n}": n for n in range(100)} | {"?": 100}, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    made.save(str(folder / "tokenizer.json"))
