"""``pdserve gate`` on a simulated cluster: verdicts, resumption, attribution, plan."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import MAX_BLOCKS
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricState
from pytest_pdserve.values.gate_state import order_of
from tests.support.gates import cut_off
from tests.support.gates import gates
from tests.support.gates import result_in
from tests.support.gates import run_gate
from tests.support.gates import state_in
from tests.support.simulated import SimulatedProject

SLOWER = "serve-args:--max-num-batched-tokens=512"
"""Prompts are computed in more steps: a slower prefill."""
SYSTEM = ("--system", "sim", "--topology", "dp")
EQUAL = ("--baseline", "current", "--candidate", "current", *SYSTEM)
WORSE = ("--baseline", "current", "--candidate", SLOWER, *SYSTEM)


@pytest.fixture
def quick(sim: SimulatedProject) -> SimulatedProject:
    """A project of one short cell with a little noise."""
    sim.sweep |= {"input_lens": [512], "num_prompts": 24, "output_lens": [32]}
    sim.system(run_cv=0.002, ttft_cv=0.002)
    return sim


def test_a_stack_against_itself_is_go(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_gate(*EQUAL) == ExitCode.OK
    (folder,) = gates(quick.path / "runs")
    result, said = result_in(folder), capsys.readouterr().out
    assert result.verdict is GateVerdict.GO
    assert result.components == ()
    assert {each.state for each in result.evidence} == {MetricState.GOOD}
    assert said.startswith("GO: no gated metric is worse by more than its margin; SIMULATED")
    assert (folder / "gate.md").read_text().startswith("# Upgrade gate on sim: GO\n")


def test_a_slower_candidate_is_no_go_and_the_worst_metric_comes_first(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_gate(*WORSE, "--attribute") == ExitCode.FAIL
    (folder,) = gates(quick.path / "runs")
    result, said = result_in(folder), capsys.readouterr().out
    worse = {each.metric for each in result.evidence if each.state is MetricState.WORSE}
    assert (result.verdict, result.components) == (GateVerdict.NO_GO, ("serve_args",))
    assert result.evidence[0].state is MetricState.WORSE
    assert {"mean_e2el_ms", "output_throughput"} <= worse
    assert "serve_args is the only component that differs" in said


def test_blocks_change_which_stack_is_first_and_each_place_is_one_start(
    quick: SimulatedProject,
) -> None:
    run_gate(*WORSE)
    (folder,) = gates(quick.path / "runs")
    steps = [start.step for start in state_in(folder).starts]
    assert [(s.block, s.place, s.side) for s in steps] == [
        (block, place, side) for block in range(3) for place, side in enumerate(order_of(block))
    ]


def test_both_stacks_of_a_pair_get_the_same_prompts(quick: SimulatedProject) -> None:
    run_gate(*EQUAL)
    (folder,) = gates(quick.path / "runs")
    names = {
        side: sorted(path.name for path in folder.glob(f"*{side}-dp/dp/*.record.json"))
        for side in "AB"
    }
    assert names["A"] == names["B"]
    assert len(names["A"]) == len(set(names["A"]))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("run_cv", "can_decide"), [(0.03, True), (0.08, False)])
def test_noise_beyond_the_margins_is_not_enough_evidence_with_what_would_decide(
    run_cv: float, can_decide: bool, quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    quick.system(run_cv=run_cv, ttft_cv=0.05)
    assert run_gate(*EQUAL, "--budget", "3blocks") == ExitCode.NOT_JUDGED
    (folder,) = gates(quick.path / "runs")
    result, said = result_in(folder), capsys.readouterr().out
    assert result.verdict is GateVerdict.NOT_ENOUGH
    assert result.forecast_blocks is not None
    assert (result.forecast_blocks <= MAX_BLOCKS) is can_decide
    again = f"--resume {folder} --budget {result.forecast_blocks}blocks"
    assert (again in said) is can_decide
    assert (f"a gate has at most {MAX_BLOCKS}" in said) is not can_decide
    assert "the noisiest is " in said
    assert "raise num_prompts in [sweep]" in said


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_a_gate_cut_off_anywhere_goes_on_to_the_same_verdict(
    quick: SimulatedProject, seed: int
) -> None:
    words = WORSE if seed % 2 else EQUAL
    code = run_gate(*words)
    (folder,) = gates(quick.path / "runs")
    whole, starts = result_in(folder), state_in(folder).starts
    kept = random.Random(seed).randrange(len(starts))
    cut_off(folder, kept)
    shutil.rmtree(folder / starts[-1].folder / "dp")  # half-written
    assert run_gate("--resume", folder) == code
    assert result_in(folder).evidence == whole.evidence
    assert [s.step for s in state_in(folder).starts] == [s.step for s in starts]


def test_a_gate_that_is_over_is_told_again_and_measures_nothing(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gate(*WORSE)
    (folder,) = gates(quick.path / "runs")
    before, first = state_in(folder).starts, capsys.readouterr().out
    assert run_gate("--resume", folder) == ExitCode.FAIL
    assert (state_in(folder).starts, capsys.readouterr().out) == (before, first)


def test_a_folder_is_used_by_one_gate_at_a_time(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gate(*EQUAL)
    (folder,) = gates(quick.path / "runs")
    before = state_in(folder)
    with FileLock(folder / ".lock"):
        assert run_gate("--resume", folder) == ExitCode.BAD_INPUT
    assert f"{folder} is in use by another pdserve gate; wait for it" in capsys.readouterr().err
    assert state_in(folder) == before


@pytest.mark.slow
def test_a_larger_budget_goes_on_with_a_gate(quick: SimulatedProject) -> None:
    quick.system(run_cv=0.08)
    run_gate(*EQUAL, "--budget", "3blocks")
    (folder,) = gates(quick.path / "runs")
    run_gate("--resume", folder, "--budget", "4blocks")
    assert result_in(folder).blocks == 4


def test_a_block_that_was_begun_on_other_nodes_is_measured_again(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gate(*EQUAL)
    (folder,) = gates(quick.path / "runs")
    cut_off(folder, 5)
    *_, last = state_in(folder).starts
    (name,) = last.records
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**record, "nodes": ["n9"]}))
    capsys.readouterr()
    assert run_gate("--resume", folder) == ExitCode.OK
    said = capsys.readouterr().err
    assert "block 2 was begun on n9, which this session does not have: it is measured again" in said
    steps = [(s.step.block, s.step.place) for s in state_in(folder).starts]
    assert steps == [(block, place) for block in (0, 1) for place in range(4)]


def test_a_gate_whose_system_changed_cannot_go_on(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    run_gate(*EQUAL)
    (folder,) = gates(quick.path / "runs")
    quick.sweep |= {"num_prompts": 25}
    quick.system(run_cv=0.002)
    capsys.readouterr()
    assert run_gate("--resume", folder) == ExitCode.BAD_INPUT
    *_, said = capsys.readouterr().err.splitlines()
    file = quick.baseline.with_name("system.toml")
    assert said == (
        f"pdserve: {folder} cannot be continued: {file} has changed since; undo the change, or "
        "begin a new gate"
    )


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--candidate", "current"), "--baseline is missing"),
        ((*EQUAL, "--budget", "2blocks"), "expected 3 to 64 blocks"),
        ((*EQUAL, "--budget", "soon"), "expected 8blocks, 90min or 240GPU-min"),
        ((*EQUAL, "--cells", "x"), "--cells 'x' matches no cell"),
        ((*EQUAL, "--cells", "a,"), "has an empty pattern"),
        ((*EQUAL, "--policy", "none.toml"), "none.toml"),
        (("--resume", "runs"), "runs is not the folder of a gate"),
        (("--resume", "runs", "--baseline", "current"), "--baseline cannot be given with"),
        (
            ("--baseline", "current", "--candidate", "serve-args:--seed=3", *SYSTEM),
            "argument '--seed=3' of a simulated engine: expected --max-num-batched-tokens=N",
        ),
        (
            ("--baseline", "current", "--candidate", "vllm==0.1", *SYSTEM),
            "system 'sim' is simulated and runs no program",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_sentence_and_leaves_no_folder(
    quick: SimulatedProject,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    assert run_gate(*words) == ExitCode.BAD_INPUT
    *_, last = capsys.readouterr().err.splitlines()
    assert sentence in last
    assert not (quick.path / "runs").exists()


def test_a_plan_says_what_would_run_and_starts_nothing(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_gate(*WORSE, "--plan") == ExitCode.OK
    said = capsys.readouterr().out
    assert "differs   serve_args\n" in said
    assert "4 starts and 4 runs a block, in the orders A B B A and B A A B" in said
    assert not (quick.path / "runs").exists()


def test_margins_of_a_policy_file_decide(quick: SimulatedProject) -> None:
    policy = quick.path / "policy.toml"
    policy.write_text("schema_version = 1\n[margins]\nmean_itl_ms = 0.9\n")
    assert run_gate(*WORSE, "--policy", policy) == ExitCode.OK
    (folder,) = gates(quick.path / "runs")
    result = result_in(folder)
    assert {each.metric for each in result.evidence} == {"mean_itl_ms"}
    assert {each.metric for each in result.shown} >= {"mean_ttft_ms", "output_throughput"}


@pytest.mark.slow
@pytest.mark.parametrize("topologies", ["dp", "dp,route4"])
def test_a_gate_ends_before_the_block_that_would_exceed_its_time(
    quick: SimulatedProject, capsys: pytest.CaptureFixture[str], topologies: str
) -> None:
    words = ("--topology", topologies, "--budget", "0.001min")
    assert run_gate(*EQUAL, *words) == ExitCode.NOT_JUDGED
    (folder,) = gates(quick.path / "runs")
    result = result_in(folder)
    assert (result.verdict, result.blocks) == (GateVerdict.NOT_ENOUGH, 1)
    said = capsys.readouterr().out
    assert "the budget of 8blocks,0.001min does not cover another block: 0 s are left" in said


@pytest.mark.slow  # a process of its own, which imports everything anew
def test_a_gate_that_is_killed_goes_on_where_it_was(quick: SimulatedProject) -> None:
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", "gate", *WORSE]
    with subprocess.Popen(command, cwd=quick.path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (found := gates(quick.path / "runs")) or len(state_in(found[0]).starts) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    (folder,) = found
    kept = state_in(folder).starts
    assert run_gate("--resume", folder) == ExitCode.FAIL
    assert state_in(folder).starts[: len(kept)] == kept
