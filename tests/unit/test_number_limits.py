"""Numbers in system files and options: each has a limit, so that nothing runs for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.simulation.options import check_size
from pytest_pdserve.values.calibration import limit_of
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.workload import Workload

SIMULATED = """schema_version = 1
description = "simulated"
[cluster]
kind = "simulated"
nodes = 4
gpus_per_node = 8
[model]
path = "m"
[sweep]
"""
UNLIMITED = {f"/SimulationSpec/{name}" for name in ("seed", "noise_seed", "night")}
"""Where any integer of 64 bits will do."""


def numbers(schema: Any, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number of a schema that is not one of several alternatives, by its place."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if kind in ("integer", "number") or kind in (["integer", "null"], ["number", "null"]):
            yield pointer, schema
        for key, each in schema.items():
            below = "" if key in ("properties", "$defs") else f"/{key}"
            yield from numbers(each, pointer + below)


def test_every_number_of_a_system_file_has_a_least_and_a_most() -> None:
    text = resources.files("pytest_pdserve.results").joinpath("schema/system.schema.json")
    found = dict(numbers(json.loads(text.read_text())))
    assert len(found) > 40
    for place, schema in found.items():
        if place not in UNLIMITED:
            assert {"maximum", "exclusiveMaximum"} & schema.keys(), place
        assert {"minimum", "exclusiveMinimum"} & schema.keys(), place


def refused(folder: Path, sweep: str) -> str:
    path = folder / "mine" / "system.toml"
    path.parent.mkdir()
    path.write_text(SIMULATED + sweep)
    with pytest.raises(ConfigError) as error:
        load_system("mine", [folder])
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (
            f"input_lens = [{10**30}]",
            "/sweep/input_lens/0: an integer of 100 bits, expected at most 64",
        ),
        (
            f"num_prompts = {10**18}",
            f"/sweep/num_prompts: {10**18} is greater than the maximum of 10000000",
        ),
        ("repeats = 10000", "/sweep/repeats: 10000 is greater than the maximum of 9999"),
        (
            "input_lens = [10000000]\noutput_lens = [1]\nnum_prompts = 1",
            "load random-10000000-1-n1 cannot be simulated: input_len = 10,000,000, expected "
            "163,840 at most",
        ),
        (
            "input_lens = [1]\noutput_lens = [163841]\nnum_prompts = 1",
            "load random-1-163841-n1 cannot be simulated: output_len = 163,841, expected 163,840 "
            "at most",
        ),
        (
            "input_lens = [1]\noutput_lens = [1]\nnum_prompts = 100001",
            "load random-1-1-n100001 cannot be simulated: num_prompts = 100,001, expected 100,000 "
            "at most",
        ),
        (
            "input_lens = [1]\noutput_lens = [4001]\nnum_prompts = 5000",
            "load random-1-4001-n5000 cannot be simulated: num_prompts x output_len = 20,005,000, "
            "expected 20,000,000 at most",
        ),
    ],
    ids=[
        *("a huge length", "huge prompts", "repeats", "long prompts", "long outputs"),
        *("many prompts", "many tokens"),
    ],
)
def test_a_sweep_that_takes_for_ever_is_refused(sweep: str, said: str, tmp_path: Path) -> None:
    assert refused(tmp_path, sweep) == said


@pytest.mark.parametrize(
    "load",
    [
        Workload(input_len=163_840, output_len=200, num_prompts=100_000),
        Workload(input_len=1, output_len=163_840, num_prompts=122),
        Workload(num_prompts=100_000, dataset="sharegpt"),
    ],
    ids=lambda load: load.id,
)
def test_a_load_of_just_the_size_can_be_simulated(load: Workload) -> None:
    check_size(load)


def test_an_endless_change_is_a_number() -> None:
    assert 1e300 < as_change(786.0, "lower") < 1e305
    assert 1e300 < as_value(786.0, "lower") < 1e305
    assert as_change(786.0, "higher") == -1.0
    assert 1e300 < limit_of(786.0) < 1e305


def test_other_changes_are_exact() -> None:
    assert as_change(0.5, "lower") == pytest.approx(0.6487212707)
    assert as_value(0.5, "higher") == pytest.approx(0.6065306597)
