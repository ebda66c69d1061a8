"""Arguments, environment and the connector's extra configuration by role."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.serving.model import kv_dtype
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

CASE = Path(__file__).parents[1] / "data" / "cases" / "roles.toml"
MORE = """
[model.prefill]
serve_args = ["--max-num-batched-tokens", "8192"]
env = { VLLM_LOGGING_LEVEL = "DEBUG" }

[kv_transfer.prefill]
extra_config = { kv_lease_duration = 240, eager = true, note = "held long" }
"""


def merged(folder: Path, *texts: str) -> System:
    """The shipped p5-efa with what *texts* add to its tables."""
    text = (SHIPPED[0] / "p5-efa" / "system.toml").read_text()
    for more in texts:
        for part in more.strip().split("\n["):
            title, _, body = part.removeprefix("[").partition("]\n")
            head = f"[{title}]\n"
            if head in text:
                text = text.replace(head, f"{head}{body}\n")
            else:
                text += f"\n{head}{body}\n"
    path = folder / "mine" / "system.toml"
    path.parent.mkdir()
    path.write_text(text)
    return load_system("mine", [folder])


def argv_of(system: System) -> dict[str, tuple[str, ...]]:
    launch = plan_topology(system, Topology.parse("1p1d")).launch
    inside = {each.name: each.argv for each in launch.instances}
    return inside


def following(argv: tuple[str, ...], flag: str) -> list[str]:
    return [b for a, b in itertools.pairwise(argv) if a == flag]


def test_arguments_of_a_role_are_its_alone(tmp_path: Path) -> None:
    argv = argv_of(merged(tmp_path, CASE.read_text(), MORE))
    assert following(argv["decode[0]"], "--max-num-seqs") == ["64"]
    assert following(argv["prefill[0]"], "--max-num-seqs") == []
    assert following(argv["prefill[0]"], "--max-num-batched-tokens") == ["8192"]
    assert following(argv["decode[0]"], "--max-num-batched-tokens") == []


def test_extra_configuration_of_all_is_overridden_by_a_roles(tmp_path: Path) -> None:
    argv = argv_of(merged(tmp_path, CASE.read_text(), MORE))
    option = "--kv-transfer-config.kv_connector_extra_config"
    assert following(argv["decode[0]"], f"{option}.kv_lease_duration") == ["120"]
    assert following(argv["prefill[0]"], f"{option}.kv_lease_duration") == ["240"]
    assert following(argv["prefill[0]"], f"{option}.eager") == ["true"]
    assert following(argv["prefill[0]"], f"{option}.note") == ["held long"]


def test_environment_of_a_role_is_its_alone(tmp_path: Path) -> None:
    argv = argv_of(merged(tmp_path, MORE))
    assert "VLLM_LOGGING_LEVEL=DEBUG" in argv["prefill[0]"]
    assert "VLLM_LOGGING_LEVEL=DEBUG" not in argv["decode[0]"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[model.decode]\nserve_args = 5", "/model/decode/serve_args: 5 is not of type 'array'"),
        ("[model.decoder]\nserve_args = []", "/model: Additional properties are not allowed"),
        ("[kv_transfer.decode]\nlease = 5", "/kv_transfer/decode: Additional properties are"),
    ],
)
def test_a_mistake_in_a_roles_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merged(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("args", "dtype"),
    [
        ([], None),
        (["--dtype", "bfloat16"], "bfloat16"),
        (["--dtype=auto"], None),
        (["--dtype", "bfloat16", "--kv-cache-dtype", "fp8"], "fp8"),
        (["--kv-cache-dtype", "auto", "--dtype", "float16"], "float16"),
        (["--dtype", "float32", "--dtype", "bfloat16"], "bfloat16"),
    ],
)
def test_the_type_of_the_cache_is_what_the_fetching_role_is_told(
    tmp_path: Path, args: list[str], dtype: str | None
) -> None:
    assert kv_dtype(merged(tmp_path, f"[model.decode]\nserve_args = {json.dumps(args)}")) == dtype


@pytest.mark.parametrize(("dtype", "size"), [(None, 4), ("bfloat16", 2), ("fp8", 1)])
def test_bytes_of_a_token_follow_the_type(tmp_path: Path, dtype: str | None, size: int) -> None:
    config = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
        "dtype": "float32",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    args = ["--dtype", dtype] if dtype else []
    system = merged(tmp_path, f"[model.decode]\nserve_args = {json.dumps(args)}")
    served = replace(system, model=replace(system.model, path=str(tmp_path)))
    shape = load_kv_shape(served)
    assert shape is not None
    assert shape.bytes_per_token == 2 * 2 * 4 * 8 * size
