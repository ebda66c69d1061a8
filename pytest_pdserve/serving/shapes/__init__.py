"""Models of a known size without weights: a configuration, a printable tokenizer, no download.

vLLM serves them with ``--load-format dummy``, random weights: as fast as the model, and its answers
mean nothing.
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
"""Arguments of ``vllm serve`` that make it draw weights."""
FOLDER_PREFIX = "shape-"
"""Begins the name of each model's folder."""
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
"""Tokens of the tokenizer that is written, in place of the model's own."""
_RECIPE = 1
"""Counts changes of how configuration and tokenizer are made."""


def shape_names() -> tuple[str, ...]:
    """Return the shapes that have a name."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.json")))


def load_shape(name: str) -> dict[str, Any]:
    """Return the configuration of a model, with the special tokens of our tokenizer.

    :param name: one of :func:`shape_names`, or a folder with a ``config.json``.
    :raises ConfigError: if there is no such shape, or it names no vocabulary.
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
    config.pop("quantization_config", None)  # it says how weights are stored, and there are none
    return {**config, **_SPECIAL}


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Return the tokens of a model by its configuration; None where that does not say it."""
    nested = config.get("text_config")
    for table in (config, nested if isinstance(nested, dict) else {}):
        said = table.get("vocab_size")
        if isinstance(said, int) and said > len(_SPECIAL):
            return said
    return None


def shape_folder(name: str, cache: Path) -> Path:
    """Return the folder below *cache* for the model of shape *name*.

    :raises ConfigError: if there is no such shape.
    """
    said = json.dumps([_RECIPE, load_shape(name)], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:12]
    return cache / f"{FOLDER_PREFIX}{Path(name).name}-{digest}"


def write_shape(name: str, folder: Path, words: tuple[str, ...]) -> None:
    """Write the model of shape *name* to *folder*, unless it is there.

    :param words: of the tokenizer, as many as the model has tokens.
    :raises ConfigError: if there is no such shape, or ``tokenizers`` is missing.
    :raises StoreError: if the disk does not take it.
    """

    def write(partial: Path) -> None:
        write_tokenizer(partial, words, max_length=131_072)
        (partial / "config.json").write_text(json.dumps(load_shape(name), indent=1))

    write_model(folder, f"a model of shape {name!r}", write)


def write_model(folder: Path, what: str, write: Callable[[Path], None]) -> None:
    """Have *write* make the files of a model, and put them into *folder* all at once.

    Nothing is done where the folder has a ``config.json``.

    :param what: the model, for messages.
    :raises ConfigError: if a package that writes it is missing.
    :raises StoreError: if the disk does not take it.
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
    """Write a tokenizer of whole *words*, of which the first three are special."""
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
