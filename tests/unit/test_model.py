"""The KV cache's shape, and the model that is made on the spot."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.serving import model
from pytest_pdserve.serving.model import CONFIG
from pytest_pdserve.serving.model import is_tiny
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import make_tiny_model
from pytest_pdserve.serving.model import vocabulary_words
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.model import KvShape
from pytest_pdserve.values.system import ClusterSpec
from pytest_pdserve.values.system import ModelSpec
from pytest_pdserve.values.system import RoleServing
from pytest_pdserve.values.system import System

DEEPSEEK_V2_LITE: dict[str, Any] = {
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "hidden_size": 2048,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "torch_dtype": "bfloat16",
}
LLAMA_8B: dict[str, Any] = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}


def serving(folder: Path, *args: str) -> System:
    """A system whose decode instances serve the model in *folder* with *args*."""
    model = ModelSpec(path=str(folder), roles={"decode": RoleServing(serve_args=args)})
    cluster = ClusterSpec(nodes=2, gpus_per_node=1)
    return System(name="s", source="s.toml", description="d", cluster=cluster, model=model)


def without(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != key}


@pytest.mark.parametrize(
    ("config", "ranks", "parts"),
    [(DEEPSEEK_V2_LITE, 8, 1), (LLAMA_8B, 4, 4), (LLAMA_8B, 16, 8)],
    ids=["a latent", "heads for every rank", "more ranks than heads"],
)
def test_ranks_store_a_block_in_parts(config: dict[str, Any], ranks: int, parts: int) -> None:
    shape = KvShape.from_config(config)
    assert shape is not None
    assert shape.parts(ranks) == parts


@pytest.mark.parametrize(
    ("config", "dtype", "bytes_per_token"),
    [
        (DEEPSEEK_V2_LITE, None, 27 * (512 + 64) * 2),
        (DEEPSEEK_V2_LITE, "float32", 27 * (512 + 64) * 4),
        (LLAMA_8B, None, 32 * 2 * 8 * 128 * 2),
        ({**LLAMA_8B, "head_dim": 64}, None, 32 * 2 * 8 * 64 * 2),
        ({**LLAMA_8B, "kv_lora_rank": None}, None, 32 * 2 * 8 * 128 * 2),
        (without(LLAMA_8B, "num_key_value_heads"), None, 32 * 2 * 32 * 128 * 2),
        ({**LLAMA_8B, "dtype": "float32"}, None, 32 * 2 * 8 * 128 * 4),
        (dict(CONFIG), None, 8 * 2 * 4 * 64 * 4),
    ],
    ids=[
        *("latent attention", "cache of another type", "grouped heads", "own head size"),
        *("no latent rank", "a head each", "newer name of the type", "the tiny model"),
    ],
)
def test_bytes_of_a_token(config: dict[str, Any], dtype: str | None, bytes_per_token: int) -> None:
    assert KvShape.from_config(config, dtype) == KvShape(bytes_per_token=bytes_per_token)


@pytest.mark.parametrize(
    "config",
    [
        {},
        without(LLAMA_8B, "num_hidden_layers"),
        without(LLAMA_8B, "torch_dtype"),
        without(LLAMA_8B, "hidden_size"),
        without(DEEPSEEK_V2_LITE, "qk_rope_head_dim"),
        {**LLAMA_8B, "torch_dtype": "int4"},
        {**LLAMA_8B, "torch_dtype": ["bfloat16"]},
        {**LLAMA_8B, "num_hidden_layers": "32"},
        {**LLAMA_8B, "num_attention_heads": 0, "num_key_value_heads": None},
        {**LLAMA_8B, "hidden_size": None},
        {**LLAMA_8B, "sliding_window": 4096},
        {**LLAMA_8B, "layer_types": ["full_attention", "sliding_attention"] * 16},
        {**LLAMA_8B, "layer_types": ["linear_attention"] * 32},
        {**DEEPSEEK_V2_LITE, "index_topk": 2048},
        {**LLAMA_8B, "mamba_d_state": 128},
        {"text_config": {**LLAMA_8B, "sliding_window": 1024}},
    ],
    ids=[
        *("empty", "no layers", "no type", "no size", "no rope", "unknown type", "types"),
        *("text for layers", "no heads", "null size", "a window", "two kinds of layers"),
        *("linear attention", "sparse attention", "state space", "a window inside"),
    ],
)
def test_a_configuration_that_says_too_little_has_no_shape(config: dict[str, Any]) -> None:
    assert KvShape.from_config(config) is None


@pytest.mark.parametrize(
    ("tokens", "block", "moved"),
    [(512, 128, 512), (513, 128, 640), (1, 16, 16), (0, 16, 0)],
)
def test_whole_blocks_are_moved(tokens: int, block: int, moved: int) -> None:
    assert KvShape(bytes_per_token=10).transfer_bytes(tokens, block) == moved * 10


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (json.dumps(DEEPSEEK_V2_LITE), KvShape(bytes_per_token=31104)),
        ("{", None),
        ("[]", None),
        (None, None),
        ('{"a":' * 100_000, None),
        ("\ufeff{}", None),
        (
            json.dumps({**DEEPSEEK_V2_LITE, "time_step_limit": [0.0, math.inf]}),
            KvShape(bytes_per_token=31104),
        ),
    ],
    ids=["sound", "cut", "a list", "a hub name", "deep", "a byte order mark", "infinity"],
)
def test_a_shape_is_read_from_the_models_folder(
    tmp_path: Path, text: str | None, shape: KvShape | None
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert load_kv_shape(serving(tmp_path)) == shape


def test_a_draft_model_has_a_cache_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DEEPSEEK_V2_LITE))
    assert load_kv_shape(serving(tmp_path, "--speculative-config", "{}")) is None
    assert load_kv_shape(serving(tmp_path, "--speculative-config.model=eagle")) is None


def test_words_are_many_short_and_each_its_own() -> None:
    vocabulary = vocabulary_words()
    assert len(vocabulary) == len(set(vocabulary)) == CONFIG["vocab_size"]
    assert vocabulary[:3] == ("<unk>", "<s>", "</s>")
    assert all(word.isascii() and word.isalpha() for word in vocabulary[3:])


def test_only_a_system_that_asks_for_it_gets_the_tiny_model(
    local_cpu: System, p5_efa: System
) -> None:
    assert with_model_path(p5_efa) is p5_efa
    assert not is_tiny(p5_efa)
    resolved = with_model_path(local_cpu)
    assert is_tiny(resolved)
    assert with_model_path(resolved) == resolved
    assert Path(resolved.model.path).is_absolute()


@pytest.fixture
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipe with less of everything: 1 MB."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    monkeypatch.setattr(model, "CONFIG", {**CONFIG, **sizes})


@pytest.mark.usefixtures("smaller")
def test_the_tiny_model_is_made_once_and_always_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_tiny_model(tmp_path / name)
    made = {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()}
    assert set(made) == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    }
    assert made == {f.name: f.read_bytes() for f in (tmp_path / "b").iterdir()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    (tmp_path / "a" / "model.safetensors").write_bytes(b"kept")
    make_tiny_model(tmp_path / "a")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == b"kept"


@pytest.mark.usefixtures("smaller")
def test_text_and_tokens_are_one_to_one(tmp_path: Path) -> None:
    """The client makes prompts of random tokens by way of text: their number must survive."""
    from tokenizers import Tokenizer

    make_tiny_model(tmp_path / "m")
    tokenizer = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    ids = [(7 * n + 11) % (CONFIG["vocab_size"] - 3) + 3 for n in range(512)]
    text = tokenizer.decode(ids)
    assert text.isprintable()
    assert tokenizer.encode(text).ids == ids


@pytest.mark.usefixtures("smaller")
def test_a_folder_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        make_tiny_model(tmp_path / "file" / "m")
