"""Generate models of a given size without weights: a configuration and a printable tokenizer.

vLLM serves them with ``--load-format dummy``, which draws random weights: as fast as the real
model, but with arbitrary answers. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pdserve.results.files import load_json
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError

LOAD_FORMAT = ("--load-format", "dummy")
"""Arguments of ``vllm serve`` for random weights."""
FOLDER_PREFIX = "shape-"
"""Prefix of the name of each model's folder."""
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
"""Special tokens of the generated tokenizer, in place of the model's own."""
_RECIPE = 1
"""Version of the code that generates configuration and tokenizer; part of the folder's name."""


def shape_names() -> tuple[str, ...]:
    """Return the names of the built-in shapes."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.json")))


def load_shape(name: str) -> dict[str, Any]:
    """Return the configuration of a model, with the special tokens of the generated tokenizer.

    :param name: one of :func:`shape_names`, or a folder with a ``config.json``.
    :raises ConfigError: if there is no such shape, or it has no vocabulary size.
    """
    path = Path(__file__).parent / f"{name}.json"
    if name not in shape_names():
        path = Path(name) / "config.json"
        if not path.is_file():
            raise ConfigError(
                f"[model] shape = {name!r} is not a known shape ({', '.join(shape_names())}), nor "
                "a folder with a config.json"
            )
    config = load_json(path, odd_number=float)
    if not isinstance(config, dict) or vocabulary_size(config) is None:
        raise ConfigError(f"{path}: expected a model's configuration with a vocab_size")
    config.pop("quantization_config", None)  # describes stored weights, which do not exist
    return {**config, **_SPECIAL}


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Return the vocabulary size in a model's configuration; None if it has none."""
    nested = config.get("text_config")
    for table in (config, nested if isinstance(nested, dict) else {}):
        size = table.get("vocab_size")
        if isinstance(size, int) and size > len(_SPECIAL):
            return size
    return None


def shape_folder(name: str, cache: Path) -> Path:
    """Return the folder below *cache* for the model of shape *name*.

    :raises ConfigError: if there is no such shape.
    """
    text = json.dumps([_RECIPE, load_shape(name)], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return cache / f"{FOLDER_PREFIX}{Path(name).name}-{digest}"


def write_shape(name: str, folder: Path, words: tuple[str, ...]) -> None:
    """Write the model of shape *name* to *folder*, unless it exists.

    :param words: vocabulary of the tokenizer, as many as the model has tokens.
    :raises ConfigError: if there is no such shape, or ``tokenizers`` is missing.
    :raises StoreError: if it cannot be written.
    """

    def write(partial: Path) -> None:
        write_tokenizer(partial, words, max_length=131_072)
        (partial / "config.json").write_text(json.dumps(load_shape(name), indent=1))

    write_model(folder, f"a model of shape {name!r}", write)


def write_model(folder: Path, what: str, write: Callable[[Path], None]) -> None:
    """Write the files of a model with *write*, and move them to *folder* atomically.

    Does nothing if the folder has a ``config.json``.

    :param what: name of the model, for messages.
    :raises ConfigError: if a package needed to write it is missing.
    :raises StoreError: if it cannot be written.
    """
    if (folder / "config.json").exists():
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        write(partial)
        partial.replace(folder)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs {error.name}; install pytest-pdserve[serve] or run `make setup`"
        ) from error
    except OSError as error:
        if not (folder / "config.json").exists():
            raise StoreError(f"model {folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_tokenizer(folder: Path, words: tuple[str, ...], *, max_length: int) -> None:
    """Write a tokenizer whose tokens are *words*, of which the first three are special."""
    from tokenizers import Tokenizer
    from tokenizers import models
    from tokenizers import pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": max_length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
