"""An upgrade gate whose starts are steps of one Slurm job."""

from __future__ import annotations

import pytest

from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import GateVerdict
from tests.slurm.test_topologies import asked_for
from tests.support.gates import cut_off
from tests.support.gates import gates
from tests.support.gates import result_in
from tests.support.gates import run_gate
from tests.support.gates import state_in
from tests.support.house import House
from tests.support.onehost import OneHost

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm-a")]

ARGUMENT = "--max-num-seqs=7"
WORDS = ("--system", "stub", "--topology", "1p1d", "--baseline", "current")
CANDIDATE = ("--candidate", f"serve-args:{ARGUMENT}")


def test_a_gate_holds_one_job_names_wrong_tokens_and_resumes_on_another(
    slurm: OneHost, slurm_house: House
) -> None:
    slurm_house.system(cluster={"nodes": 2}, sweep={"num_prompts": 1, "max_concurrency": 1})
    slurm_house.with_argument(ARGUMENT, text="wrong")
    before = asked_for(slurm)
    assert run_gate(*WORDS, *CANDIDATE) == ExitCode.FAIL
    (folder,) = gates(slurm_house.runs)
    result = result_in(folder)
    assert (result.verdict, result.blocks, result.starts) == (GateVerdict.NO_GO, 1, 4)
    assert result.faults[0].startswith("wrong tokens: 1p1d: B's greedy answers to 8 of 8 prompts")
    assert asked_for(slurm) == before + 1

    cut_off(folder, 3)
    assert run_gate("--resume", folder) == ExitCode.FAIL
    assert (result_in(folder).verdict, state_in(folder).sittings) == (GateVerdict.NO_GO, 2)
    assert asked_for(slurm) == before + 2
