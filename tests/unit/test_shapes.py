"""Models of a known size without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pdserve.serving.model import has_random_weights
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import load_vocabulary
from pytest_pdserve.serving.model import make_model
from pytest_pdserve.serving.model import vocabulary_words
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.shapes import load_shape
from pytest_pdserve.serving.shapes import shape_names
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from tests.support.systems import LEAST
from tests.support.systems import loaded
from tests.support.systems import refused

SHAPED = LEAST.replace('path = "m"', 'shape = "{}"')


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shaped(folder: Path, name: str, more: str = "") -> System:
    return with_model_path(loaded(folder, SHAPED.format(name) + more))


@pytest.mark.parametrize(
    ("name", "vocabulary", "bytes_per_token"),
    [
        ("deepseek-v2-lite", 102_400, 27 * 576 * 2),
        ("llama-3.1-8b", 128_256, 2 * 32 * 8 * 128 * 2),
    ],
)
def test_a_named_shape_is_a_model_of_that_size(
    name: str, vocabulary: int, bytes_per_token: int, tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    system = shaped(tmp_path, name)
    make_model(system)
    shape = load_kv_shape(system)
    assert shape is not None
    assert shape.bytes_per_token == bytes_per_token
    assert load_vocabulary(system.model.path) == vocabulary
    assert has_random_weights(system)
    made = tokenizers.Tokenizer.from_file(f"{system.model.path}/tokenizer.json")
    assert made.get_vocab_size() == vocabulary
    text = made.decode([3, vocabulary - 1])
    assert made.encode(text).ids == [3, vocabulary - 1]
    assert text.replace(" ", "").isalpha()


def test_names_are_those_of_the_docs() -> None:
    assert shape_names() == ("deepseek-v2-lite", "llama-3.1-8b")


def test_any_configuration_is_a_shape(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    config = {"text_config": {"vocab_size": 50}, "quantization_config": {}, "eos_token_id": [7]}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_shape(str(folder)) == {
        "text_config": {"vocab_size": 50},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    system = shaped(tmp_path, str(folder))
    assert Path(system.model.path).name.startswith("shape-my-model-")


@pytest.mark.parametrize("args", [("--load-format", "auto"), ("--load-format=auto",)])
def test_a_shape_that_says_how_weights_are_loaded_keeps_it(
    args: tuple[str, ...], tmp_path: Path
) -> None:
    system = shaped(tmp_path, "llama-3.1-8b", f"serve_args = {list(args)}\n")
    assert system.model.serve_args == args
    assert not has_random_weights(system)


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"vocab_size": "many"}', "{"])
def test_what_is_no_shape_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_shape(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_system_names_one_model(tmp_path: Path) -> None:
    both = LEAST + 'shape = "llama-3.1-8b"\n'
    assert "path = 'm' and shape = 'llama-3.1-8b' name two models" in refused(tmp_path, both)
    none = LEAST.replace('path = "m"', "")
    assert "/model: names no model; write path = " in refused(tmp_path, none)


def test_words_are_different_and_enough() -> None:
    assert len(set(vocabulary_words(128_256))) == 128_256
