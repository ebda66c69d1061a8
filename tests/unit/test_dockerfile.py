"""The image's recipe keeps our rules: versions pinned, nothing run unread, nothing left over."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

DOCKER = Path(__file__).parents[2] / "docker"
TEXT = (DOCKER / "Dockerfile").read_text()
ARTICLE = {
    "CUDA": "12.8.1",
    "GDRCOPY": "2.5.1",
    "EFA": "1.47.0",
    "UCX": "1.20.0",
    "NIXL": "0.10.1",
    "TORCH": "2.9.1",
    "FLASH_ATTN": "2.8.1",
    "DEEPGEMM": "2.1.1.post3",
    "VLLM": "0.15.1",
}
HASH = "[0-9a-f]{40}|[0-9a-f]{64}"


class Step(NamedTuple):
    """One instruction, its lines joined."""

    word: str
    rest: str


def parse(text: str) -> tuple[Step, ...]:
    """Instructions of a Dockerfile, without comments and with heredocs inside their own."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"<<EOF (.*)\n((?:.*\n)*?)EOF\n", r"\1 \\\n\2\n", text)
    joined = re.sub(r"\\\n\s*", " ", text)
    steps = []
    for line in joined.splitlines():
        word, _, rest = line.partition(" ")
        if word.isupper() and word.isalpha():
            steps.append(Step(word, rest.strip()))
        elif line.strip():
            steps[-1] = Step(steps[-1].word, f"{steps[-1].rest} {line.strip()}")
    return tuple(steps)


STEPS = parse(TEXT)
RUNS = tuple(step.rest for step in STEPS if step.word == "RUN")
FIRST = next(at for at, step in enumerate(STEPS) if step.word == "FROM")
GLOBALS = dict(step.rest.split("=", 1) for step in STEPS[:FIRST])


def test_versions_are_the_articles() -> None:
    assert {name: GLOBALS.get(name) for name in ARTICLE} == ARTICLE


def test_every_stage_starts_at_a_pinned_image_or_a_stage() -> None:
    stages: set[str] = set()
    for step in STEPS:
        if step.word == "FROM":
            image, _, name = step.rest.partition(" AS ")
            assert image in stages or image == "nvidia/cuda:${CUDA}-devel-ubuntu24.04"
            stages.add(name)


def test_every_argument_is_used() -> None:
    names = {step.rest.partition("=")[0] for step in STEPS if step.word == "ARG"}
    unused = {name for name in names if f"${{{name}" not in TEXT} - {"DEBIAN_FRONTEND"}
    assert not unused


@pytest.mark.parametrize("name", GLOBALS)
def test_every_version_is_a_label_and_checked(name: str) -> None:
    key = {"ROUTER": "vllm-router"}.get(name, name.lower().replace("_", "-"))
    assert f'pdserve.{key}="${{{name}}}"' in TEXT
    assert f"\n{key}=${{{name}}}\n" in TEXT


def test_python_packages_are_pinned_or_constrained() -> None:
    for run in RUNS:
        if "pip install" in run or "pip wheel" in run:
            assert "--constraint /constraints.txt" in run or "--no-deps" in run
    lines = (DOCKER / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.partition("==")[0] for pin in pins}
    assert not pinned & {"vllm", "torch", "vllm-router", "flash-attn", "nixl", "nixl-cu12"}


def test_packages_of_the_archive_leave_no_lists() -> None:
    for run in RUNS:
        if "apt-get" in run:
            assert run.endswith("rm -rf /var/lib/apt/lists/*")
        if "apt-get install" in run:
            assert "apt-get install -y --no-install-recommends " in run


def test_sources_are_tags_whose_commit_can_be_named() -> None:
    fetched = [run for run in RUNS if run.startswith("fetch ")]
    assert len(fetched) == 5
    for run in fetched:
        name = run.split()[1].upper()
        assert run.endswith(f'"v${{{name}}}" "${{{name}_COMMIT}}"')
    assert not [run for run in RUNS if "git clone" in run]


def test_downloads_are_verified_and_no_shell_reads_them() -> None:
    assert not [step for step in STEPS if step.word == "ADD"]
    downloads = [run for run in RUNS if "curl -" in run]
    assert len(downloads) == 1
    assert "|" not in downloads[0]
    after = RUNS[RUNS.index(downloads[0]) + 1]
    assert "gpg --batch --status-fd 1 --verify" in after
    assert "sha256sum --check" in after


def test_the_context_has_what_is_copied_and_no_more() -> None:
    ignored = (DOCKER / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        step.rest.split()[0]
        for step in STEPS
        if step.word == "COPY" and not step.rest.startswith(("--from=", "/opt/"))
    }
    assert copied == {"fetch.sh", "validate.py", "${CONSTRAINTS}"}
    assert let_in == {"fetch.sh", "validate.py", "constraints*.txt"}


def test_nothing_is_invented() -> None:
    given = re.findall(r"^ARG (\w+(?:_COMMIT|SHA256))=(.*)$", TEXT, re.MULTILINE)
    assert len(given) == 6
    assert not [name for name, value in given if value and not re.fullmatch(HASH, value)]


def test_the_environment_is_the_one_that_is_validated() -> None:
    spec = importlib.util.spec_from_file_location("image_validate", DOCKER / "validate.py")
    assert spec is not None
    assert spec.loader is not None
    validate = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = validate
    spec.loader.exec_module(validate)
    environment = next(step.rest for step in reversed(STEPS) if step.word == "ENV")
    words = dict(word.split("=", 1) for word in environment.split())
    words.pop("PATH")
    assert words == validate.ENVIRONMENT
