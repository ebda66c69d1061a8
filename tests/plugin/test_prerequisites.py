"""A session that lacks something it needs is one sentence and exit code 4; nothing is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import ENDPOINT_PORT
from tests.support.house import House
from tests.support.house import only_sentence

URL = f"http://127.0.0.1:{ENDPOINT_PORT}"
SERVE = "install pytest-pdserve[serve], or run `make setup` in a checkout"
NEITHER = (
    "which is neither beside {python} nor on PATH; install pytest-pdserve[serve], run `make setup` "
    "in a checkout"
)
PIP = "not installed for {python}; run {python} -m pip install "
ENGINE = (
    "the container engine is missing: system 'stub' needs {engine} on this machine "
    "(container.kind = '{engine}' in {system}), found was {found}; install {engine} and start it, "
    "or choose another container.kind"
)
SLURM = {"cluster": {"kind": "slurm", "memory_per_instance_gib": 0.0, "bind_host": "0.0.0.0"}}
"""A system whose nodes Slurm has."""
DOCKER = {"container": {"kind": "docker", "image": "nixl:latest"}}


@pytest.fixture
def needy(house: House) -> House:
    """A project with tests that start servers and measure."""
    house.suites("smoke", "sweep")
    return house


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that takes packages away: they are found no more, as if not installed."""

    def take_away(*names: str) -> None:
        for name in names:
            for loaded in [each for each in sys.modules if each.split(".")[0] == name]:
                monkeypatch.delitem(sys.modules, loaded)
            monkeypatch.setitem(sys.modules, name, None)

    return take_away


def said_by(house: House, *arguments: str) -> str:
    """The one sentence of a session that starts nothing."""
    said = only_sentence(house.run(*arguments))
    assert not house.runs.exists()
    return said


def filled(text: str, **values: object) -> str:
    """*text* with what differs between machines."""
    for name, value in {"python": sys.executable, **values}.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("packages", "tables", "sentence"),
    [
        pytest.param(
            (),
            {"programs": {"vllm": "no-such-vllm"}},
            f"vLLM is missing: system 'stub' needs 'no-such-vllm', {NEITHER}, or name the program "
            "in [programs] vllm of {system}",
            id="vLLM",
        ),
        pytest.param(
            (),
            {"programs": {"router": "no-such-router"}},
            f"the router is missing: system 'stub' needs 'no-such-router', {NEITHER}, or name the "
            "program in [programs] router of {system}",
            id="router",
        ),
        pytest.param(
            (),
            {"model": {"path": "/no/such/model"}},
            "model /no/such/model does not exist, and system 'stub' serves it from this machine; "
            "put it there, or name another in [model] path of {system}",
            id="model",
        ),
        pytest.param(
            ("tokenizers",),
            {"model": {"path": "tiny"}},
            f"the tiny model needs tokenizers, which {{python}} does not have; {SERVE}",
            id="tokenizers",
        ),
        pytest.param(
            ("safetensors", "tokenizers"),
            {"model": {"path": "tiny"}},
            "the tiny model needs safetensors, tokenizers, which {python} does not have; "
            f"{SERVE}",
            id="safetensors and tokenizers",
        ),
        pytest.param(
            ("submitit",),
            SLURM,
            "system 'stub' needs submitit, which is not installed; install pytest-pdserve[slurm]",
            id="submitit",
        ),
        pytest.param(
            ("pyarrow",),
            {},
            f"pytest-pdserve needs 'pyarrow>=16', {PIP}'pyarrow>=16'",
            id="what records are written with",
        ),
        pytest.param(
            ("httpx", "prometheus_client"),
            {},
            f"pytest-pdserve needs 'httpx>=0.27', 'prometheus-client>=0.20', {PIP}'httpx>=0.27' "
            "'prometheus-client>=0.20'",
            id="what endpoints and counters are read with",
        ),
        pytest.param(
            (),
            {"container": {"kind": "enroot", "image": "/no/such/image.sqsh"}},
            ENGINE.replace("{engine}", "enroot").replace("{found}", "no enroot on PATH"),
            id="enroot",
        ),
        pytest.param(
            (),
            {"container": {"kind": "podman", "image": "nixl:latest"}},
            ENGINE.replace("{engine}", "podman").replace("{found}", "no podman on PATH"),
            id="podman",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(
    packages: tuple[str, ...],
    tables: dict[str, Any],
    sentence: str,
    needy: House,
    without: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = needy.system(**tables)
    monkeypatch.setenv("PATH", str(needy.path))
    without(*packages)
    assert said_by(needy, "--topology", "1p1d") == filled(sentence, system=system)


@pytest.fixture
def docker(needy: House, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that puts a docker on PATH whose answer has this exit code."""

    def put(code: int) -> None:
        program = needy.path / "docker"
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{needy.path}{os.pathsep}{os.environ['PATH']}")

    return put


def test_an_engine_that_does_not_answer_is_one_sentence(
    needy: House, docker: Callable[[int], None]
) -> None:
    system = needy.system(**DOCKER)
    docker(1)
    assert said_by(needy, "--topology", "dp") == filled(
        ENGINE, engine="docker", found="docker, which does not answer", system=system
    )


def test_an_image_that_is_no_file_is_one_sentence(
    needy: House, docker: Callable[[int], None]
) -> None:
    system = needy.system(container={**DOCKER["container"], "image": "/no/such/image.tar.gz"})
    docker(0)
    assert said_by(needy, "--topology", "dp") == (
        "the image is missing: system 'stub' needs /no/such/image.tar.gz, which does not exist on "
        f"this machine; put it there, or name another in [container] image of {system}"
    )


@pytest.fixture
def beside(needy: House, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This Python, in the folder where the programs of the house are."""
    python = needy.path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    return python


def test_an_environment_without_nixl_is_one_sentence(
    needy: House, beside: Path, without: Callable[..., None]
) -> None:
    without("nixl", "rixl")
    assert said_by(needy, "--topology", "1p1d") == (
        f"NIXL is missing: system 'stub' moves KV caches by NixlConnector, and {beside} has no "
        f"package nixl; {SERVE}"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "programs"),
    [(("nixl", "rixl"), {}), ((), {"router": "no-such-router"})],
    ids=["NIXL", "router"],
)
def test_what_no_topology_needs_may_be_missing(
    packages: tuple[str, ...], programs: dict[str, str], needy: House, without: Callable[..., None]
) -> None:
    needy.system(programs=programs)
    without(*packages)
    needy.run("--topology", "dp", "-k", "answers").assert_outcomes(passed=1)


def test_an_endpoint_without_vllm_for_its_client_is_one_sentence(needy: House) -> None:
    system = needy.system(programs={"vllm": "no-such-vllm"}, bench={"client": "vllm"})
    assert said_by(needy, "--pdserve-base-url", URL) == filled(
        f"vLLM is missing: [bench] client = 'vllm' needs 'no-such-vllm', {NEITHER}, or name the "
        "program in [programs] vllm of {system}",
        system=system,
    )


def test_an_endpoint_of_which_nothing_is_measured_needs_no_client(needy: House) -> None:
    needy.system(programs={"vllm": "no-such-vllm"})
    result = needy.run("--pdserve-base-url", URL, "-k", "answers")
    result.assert_outcomes(errors=1)
    assert f"{URL}/v1/models cannot be reached: " in result.stdout.str()


def test_a_runs_folder_that_cannot_be_made_is_one_sentence(needy: House) -> None:
    said = said_by(needy, "--topology", "dp", "--pdserve-runs", "/proc/pdserve")
    assert said.startswith("runs folder /proc/pdserve cannot be used: ")
    assert said.endswith("; choose another with --pdserve-runs (of pytest) or --runs (of pdserve)")


def test_a_runs_folder_is_tried_and_nothing_is_left_of_that(needy: House) -> None:
    before = {path.name for path in needy.path.iterdir()}
    needy.run("--topology", "dp", "--collect-only")
    needy.run("--topology", "dp", "-k", "answers")
    assert {path.name for path in needy.path.iterdir()} - before <= {"runs", "suites", "state"}
