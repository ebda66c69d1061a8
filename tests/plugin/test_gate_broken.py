"""``pdserve gate`` of stub engines: a candidate, or both stacks, that do not serve rightly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pytest_pdserve.gating.starts import GREEDY_PROMPTS
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import GateVerdict
from tests.support.gates import gates
from tests.support.gates import result_in
from tests.support.gates import run_gate
from tests.support.gates import state_in
from tests.support.house import WORKER
from tests.support.house import House

ARGUMENT = "--max-num-seqs=7"
WORDS = ("--system", "stub", "--topology", "dp", "--baseline", "current")
CANDIDATE = ("--candidate", f"serve-args:{ARGUMENT}")


@pytest.fixture
def one(house: House) -> House:
    """A system of one node: a start is that of one engine.

    One request is a load that no client of a busy machine can send late.
    """
    house.system(cluster={"nodes": 1}, sweep={"num_prompts": 1, "max_concurrency": 1})
    return house


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        ({"exit_at_start": 3}, "it does not start: "),
        pytest.param(
            {"exit_after_streams": GREEDY_PROMPTS + 1},
            "it fails under the load random-32-8-n1-c1: ",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["does not start", "dies under load"],
)
def test_what_only_the_candidate_breaks_is_no_go(
    one: House, capsys: pytest.CaptureFixture[str], faults: dict[str, Any], sentence: str
) -> None:
    one.with_argument(ARGUMENT, **faults)
    assert run_gate(*WORDS, *CANDIDATE) == ExitCode.FAIL
    (folder,) = gates(one.runs)
    result, said = result_in(folder), capsys.readouterr().out
    (fault,) = result.faults
    assert fault.startswith(
        f"B fails on dp twice in a row, where A works before and after: {sentence}"
    )
    steps = [(s.step.side, s.step.attempt, s.step.control) for s in state_in(folder).starts]
    assert steps == [("A", 1, False), ("B", 1, False), ("B", 2, False), ("A", 1, True)]
    assert (result.verdict, result.notes) == (GateVerdict.NO_GO, ())
    assert fault in said


@pytest.mark.slow
def test_wrong_tokens_of_the_candidate_are_no_go_though_every_request_completes(
    one: House,
) -> None:
    """All starts fit into a span of two ports, because those of ended servers are given back."""
    one.system(
        cluster={"nodes": 1},
        sweep={"num_prompts": 1, "max_concurrency": 1},
        ports={"http": 32650 + 10 * WORKER, "span": 2},  # of no other test
    )
    one.with_argument(ARGUMENT, text="wrong")
    assert run_gate(*WORDS, *CANDIDATE) == ExitCode.FAIL
    (folder,) = gates(one.runs)
    result = result_in(folder)
    (fault,) = result.faults
    assert fault.startswith(
        "wrong tokens: dp: B's greedy answers to 8 of 8 prompts differ from A's at all 2 starts"
    )
    assert (result.verdict, result.blocks, result.starts) == (GateVerdict.NO_GO, 1, 4)


def test_a_baseline_that_is_broken_itself_is_an_error(
    one: House, capsys: pytest.CaptureFixture[str]
) -> None:
    one.faults(every={"exit_at_start": 3})
    assert run_gate(*WORDS, *CANDIDATE) == ExitCode.ERROR
    (folder,) = gates(one.runs)
    result = result_in(folder)
    assert result.error is not None
    assert result.error.startswith("A, the baseline, is broken itself on dp: it does not start: ")
    assert (result.verdict, result.faults) == (GateVerdict.ERROR, ())
    assert capsys.readouterr().out.startswith("ERROR: the stacks could not be compared\n")


def test_a_second_gate_on_the_nodes_of_a_system_is_an_error_that_starts_nothing(
    one: House,
) -> None:
    path = state_folder() / "gates" / "stub.lock"
    path.parent.mkdir(parents=True)
    with FileLock(path):
        assert run_gate(*WORDS, *CANDIDATE) == ExitCode.ERROR
    (folder,) = gates(one.runs)
    error = result_in(folder).error
    assert error is not None
    assert error.startswith("another gate on system 'stub' is running on this machine")
    assert state_in(folder).starts == ()


def test_a_candidate_that_does_not_install_is_an_error(
    one: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(one.programs["vllm"]).with_name("python").symlink_to(sys.executable)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(one.path / "uv"))
    assert run_gate(*WORDS, "--candidate", "vllm==0.0.0.1") == ExitCode.ERROR
    (folder,) = gates(one.runs)
    error = result_in(folder).error
    assert error is not None
    assert "vllm==0.0.0.1" in error
    assert "\n" not in error
    assert state_in(folder).starts == ()
