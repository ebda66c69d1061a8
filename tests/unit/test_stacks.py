"""Stacks: what their texts say, how two differ, and which texts are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.stacks import parse_stack
from pytest_pdserve.backends.stacks.parsing import parse_words
from pytest_pdserve.backends.stacks.running import parts_of
from pytest_pdserve.backends.stacks.uv import last_lines
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import components
from pytest_pdserve.values.stack import same_version
from pytest_pdserve.values.system import KvTransfer
from pytest_pdserve.values.system import Programs
from pytest_pdserve.values.system import System

BASELINES = Path(__file__).parents[2] / "baselines"
PINS = {"vllm": "0.32.0", "nixl": "1.5.1", "vllm-router": "0.1.17"}


@pytest.fixture
def system() -> System:
    """A system whose environment is not there, so that nothing is asked."""
    known = load_system("local-cpu", [BASELINES])
    return replace(known, programs=Programs(vllm="/nowhere/vllm", router="/nowhere/router"))


def stack(**fields: object) -> Stack:
    return Stack(**{"text": "", "digest": "", "pins": PINS, **fields})  # type: ignore[arg-type]


def test_words_of_a_stack_are_pins_and_arguments() -> None:
    words = parse_words(
        "vllm==0.32.0+cpu VLLM_Router==0.1.17 serve-args:--max-num-batched-tokens=512 "
        "'serve-args:--override={\"a\": 1}'"
    )
    assert words.pins == {"vllm": "0.32.0+cpu", "vllm-router": "0.1.17"}
    assert words.serve_args == ("--max-num-batched-tokens=512", '--override={"a": 1}')
    assert words.python is None
    assert words.image is None


def test_a_stack_keeps_versions_that_it_names_and_is_built(system: System) -> None:
    parsed = parse_stack("nixl==1.4.1", system)
    assert parsed.pins == {"nixl": "1.4.1"}
    assert parsed.builds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("nixl=1.4.1", "'nixl=1.4.1' is invalid"),
        ("nixl>=1.4", "'nixl>=1.4' is invalid"),
        ("nixl==1.4.1 nixl==1.5.1", "it pins nixl twice"),
        ("nixl==1.4.1 'x", "a quotation mark is not closed"),
        ("python:", "'python:' has no value"),
        ("python:/a python:/b", "it names python: twice"),
        ("current nixl==1.4.1", "'current' is the system as it is"),
        ("nixl==1.4.1 python:/a", "it names versions and python:; a stack has one source"),
        ("python:/nowhere", "/nowhere does not exist"),
        ("image:vllm:1", "runs no containers"),
        ("current serve-args:--port=1", "--port repeats what the plan sets"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) and "==" in value else None,
)
def test_a_text_of_another_form_is_refused_in_one_sentence(
    system: System, text: str, why: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parse_stack(text, system)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("other", "differ"),
    [
        ({}, ()),
        ({"pins": {**PINS, "nixl": "1.4.1", "vllm": "0.31.0"}}, ("vllm", "nixl")),
        ({"pins": {**PINS, "torch": "2.12.0"}}, ("torch",)),
        ({"serve_args": ("--x",)}, ("serve_args",)),
        ({"pins": {}, "image": "vllm:1"}, ("image",)),
    ],
    ids=["same", "two", "another distribution", "arguments", "image"],
)
def test_components_are_the_names_in_which_two_stacks_differ(
    other: dict[str, object], differ: tuple[str, ...]
) -> None:
    assert components(stack(), stack(**other)) == differ


def test_a_digest_tells_stacks_apart_by_what_runs_and_not_by_their_words(system: System) -> None:
    one, same, other, more = (
        parse_stack(text, system).digest
        for text in (
            "nixl==1.4.1 vllm==0.32.0",
            "vllm==0.32.0  nixl==1.4.1",
            "nixl==1.4.1 vllm==0.31.0",
            "nixl==1.4.1 vllm==0.32.0 serve-args:--enforce-eager",
        )
    )
    assert one == same
    assert len({one, other, more}) == 3


@pytest.mark.parametrize(
    ("role", "connector", "parts"),
    [
        ("router", "NixlConnector", ("vllm-router",)),
        ("aggregated", "NixlConnector", ("vllm",)),
        ("prefill", "NixlConnector", ("vllm", "nixl")),
        ("decode", "NixlConnector", ("vllm", "nixl")),
        ("decode", "LMCacheConnectorV1", ("vllm",)),
    ],
)
def test_an_instance_must_have_loaded_nixl_where_it_moves_kv_caches_by_it(
    role: str, connector: str, parts: tuple[str, ...]
) -> None:
    assert parts_of(role, KvTransfer(connector=connector)) == parts


@pytest.mark.parametrize(
    ("pin", "found", "same"),
    [
        ("0.32.0", "0.32.0", True),
        ("0.32.0", "0.32.0+cpu", True),
        ("0.32.0+cpu", "0.32.0", False),
        ("0.32.0", "0.32.1+cpu", False),
    ],
)
def test_a_local_part_of_a_version_counts_where_it_is_pinned(
    pin: str, found: str, same: bool
) -> None:
    assert same_version(pin, found) is same


def test_the_last_lines_of_uv_are_one_sentence_without_its_drawing() -> None:
    said = "  × No solution:\n  ╰─▶ Because there is no version of\n      nixl==9.9, we stop.\n"
    assert last_lines(said) == ("No solution: Because there is no version of nixl==9.9, we stop.")
