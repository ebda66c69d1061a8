"""Generate a small Llama-shaped model: no download, printable tokens, seeded weights.

Weights are chosen so that greedy output depends on every prompt token: a KV cache that is lost or
mixed up in transfer changes the text.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs

from pytest_pdserve.plan.command import value_of
from pytest_pdserve.results.files import load_json
from pytest_pdserve.serving.shapes import LOAD_FORMAT
from pytest_pdserve.serving.shapes import load_shape
from pytest_pdserve.serving.shapes import shape_folder
from pytest_pdserve.serving.shapes import vocabulary_size
from pytest_pdserve.serving.shapes import write_model
from pytest_pdserve.serving.shapes import write_shape
from pytest_pdserve.serving.shapes import write_tokenizer
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.model import KvShape
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.system import System

TINY = "tiny"
"""Value of ``model.path`` in a system file for this model."""

CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "dtype": "float32",
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_MAKERS = ("numpy", "safetensors", "tokenizers")
"""Packages needed to write the model."""
_SEED = 20260310
_RECIPE = 1
"""Version of the code that generates weights and tokens; part of the folder's name."""


def with_model_path(system: System) -> System:
    """Return *system* with the folder of a generated model as its path; writes no files.

    :raises ConfigError: if it names an unknown shape.
    """
    cache = Path(platformdirs.user_cache_dir("pytest-pdserve", appauthor=False))
    model = system.model
    if model.shape is not None and not model.path:
        drawn = LOAD_FORMAT if value_of(model.serve_args, LOAD_FORMAT[0]) is None else ()
        folder, args = shape_folder(model.shape, cache), (*model.serve_args, *drawn)
        return replace(system, model=replace(model, path=str(folder), serve_args=args))
    if model.path != TINY:
        return system
    digest = hashlib.sha256(json.dumps([_RECIPE, _SEED, dict(CONFIG)]).encode()).hexdigest()[:12]
    return replace(system, model=replace(model, path=str(cache / f"tiny-{digest}")))


def make_model(system: System) -> None:
    """Write the model of *system* if it is a generated one.

    :param system: as returned by :func:`with_model_path`.
    :raises ConfigError: if a package needed to write it is missing.
    :raises StoreError: if it cannot be written.
    """
    path, shape = Path(system.model.path), system.model.shape
    if is_tiny(system):
        make_tiny_model(path)
    elif shape is not None:
        write_shape(shape, path, vocabulary_words(vocabulary_size(load_shape(shape)) or 0))


def has_random_weights(system: System) -> bool:
    """Return whether instances of *system* serve random weights, so that answers are arbitrary."""
    args = [word for role in ROLES for word in system.serve_args(role)]
    return value_of(args, "--load-format") == "dummy"


def is_tiny(system: System) -> bool:
    """Return whether *system*, as returned by :func:`with_model_path`, serves the tiny model."""
    return Path(system.model.path).name.startswith(f"{TINY}-")


def is_made_here(system: System) -> bool:
    """Return whether :func:`make_model` writes the model of *system*."""
    return is_tiny(system) or system.model.shape is not None


def check_model(system: System, *, here: bool) -> None:
    """Raise if the model does not exist, or cannot be generated, before anything is started.

    :param here: whether servers read it from a folder of this machine.
    :raises ConfigError: if a folder or a package is missing.
    """
    path, shape = system.model.path, system.model.shape
    if shape is not None:
        load_shape(shape)
    if path == TINY:
        exists = os.path.exists(Path(with_model_path(system).model.path) / "config.json")
        missing = [] if exists else [name for name in _MAKERS if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"the tiny model needs {', '.join(missing)}, which {sys.executable} does not have; "
                "install pytest-pdserve[serve], or run `make setup` in a checkout"
            )
    elif here and path.startswith(("/", "./", "../")) and not os.path.exists(path):
        raise ConfigError(
            f"model {path} does not exist, and system {system.name!r} serves it from this machine; "
            f"put it there, or name another in [model] path of {system.source}"
        )


def make_tiny_model(folder: Path, *, reseeded: bool = False) -> None:
    """Write the model to *folder* unless it exists: about 120 MB, two seconds.

    :param reseeded: whether to use another seed, for another revision of the same shape.
    :raises ConfigError: if ``tokenizers``, ``safetensors`` or ``numpy`` is missing.
    :raises StoreError: if it cannot be written.
    """

    def write(partial: Path) -> None:
        write_tokenizer(partial, vocabulary_words(), max_length=CONFIG["max_position_embeddings"])
        _write_weights(partial, _SEED + reseeded)
        (partial / "config.json").write_text(json.dumps(dict(CONFIG), indent=1))

    write_model(folder, "the tiny model", write)


def load_kv_shape(system: System) -> KvShape | None:
    """Return the KV-cache shape of the model, as *system* serves it.

    :returns: None for a hub name, an unreadable folder, layers without full attention, and
        speculative decoding.
    """
    config = _config(system.model.path)
    args = [word for role in kv_pullers() for word in system.serve_args(role)]
    drafted = any(word.startswith("--speculative") for word in args)
    if not isinstance(config, dict) or drafted:
        return None
    return KvShape.from_config(config, kv_dtype(system))


def load_vocabulary(model: str) -> int | None:
    """Return the vocabulary size of a model; None for a hub name or an unreadable folder."""
    config = _config(model)
    try:
        size = {**config.get("text_config", {}), **config}["vocab_size"]
    except (KeyError, TypeError, AttributeError):
        return None
    return size if isinstance(size, int) and size > 0 else None


def _config(model: str) -> Any:
    """Return the configuration of a model; None for a hub name or an unreadable folder."""
    try:
        return load_json(Path(model) / "config.json", odd_number=float)
    except ConfigError:
        return None


def kv_dtype(system: System) -> str | None:
    """Return the KV-cache dtype in the arguments of decode instances; None for the model's own."""
    for role in kv_pullers():
        args = system.serve_args(role)
        for flag in ("--kv-cache-dtype", "--dtype"):
            dtype = value_of(args, flag)
            if dtype not in (None, "auto"):
                return dtype
    return None


def vocabulary_words(size: int = CONFIG["vocab_size"]) -> tuple[str, ...]:
    """Return a vocabulary: three special tokens, then words of two or more syllables."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words = (map("".join, itertools.product(syllables, repeat=count)) for count in range(2, 5))
    vocabulary = itertools.chain(("<unk>", "<s>", "</s>"), *words)
    return tuple(itertools.islice(vocabulary, size))


def _write_weights(folder: Path, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    queries = CONFIG["num_attention_heads"] * CONFIG["head_dim"]
    keys = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Any:
        scale = gain / np.sqrt(columns)
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)

    def ones() -> Any:
        return np.ones(hidden, dtype=np.float32)

    tensors = {
        "model.embed_tokens.weight": random.standard_normal(
            (CONFIG["vocab_size"], hidden), dtype=np.float32
        ),
        "lm_head.weight": matrix(CONFIG["vocab_size"], hidden),
        "model.norm.weight": ones(),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        tensors |= {
            f"{name}.input_layernorm.weight": ones(),
            f"{name}.post_attention_layernorm.weight": ones(),
            f"{name}.self_attn.q_proj.weight": matrix(queries, hidden, 2.0),
            f"{name}.self_attn.k_proj.weight": matrix(keys, hidden, 2.0),
            f"{name}.self_attn.v_proj.weight": matrix(keys, hidden, 2.0),
            f"{name}.self_attn.o_proj.weight": matrix(hidden, queries, 2.0),
            f"{name}.mlp.gate_proj.weight": matrix(inner, hidden),
            f"{name}.mlp.up_proj.weight": matrix(inner, hidden),
            f"{name}.mlp.down_proj.weight": matrix(hidden, inner),
        }
    save_file(tensors, folder / "model.safetensors")
