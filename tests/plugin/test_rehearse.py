"""`pdserve rehearse` with stub engines: what became of each mixture of two environments."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pytest_pdserve.commands.main import main
from pytest_pdserve.values.exit_codes import ExitCode
from tests.support.house import House
from tests.support.stacks import VERSIONS
from tests.support.stacks import make_environment

Rehearse = Callable[..., int]
OLD = {**VERSIONS, "nixl": "1.4.1"}
ONE = ("--max-combinations", "1")
"""Prefill of A, decode of B."""


@pytest.fixture
def rehearse(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearse]:
    """The command from ``a`` to ``b``, two environments in the project."""
    monkeypatch.chdir(house.path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*words: str) -> int:
        sides = ("--from", f"python:{house.path}/a", "--to", f"python:{house.path}/b")
        return main(["rehearse", *sides, "--system", "stub", "--output", "out", *words])

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def results() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path("out/rehearsal.json").read_text())["results"]
    return found


@pytest.mark.slow
def test_a_mixture_whose_tokens_are_right_works_and_is_not_run_again(
    house: House, rehearse: Rehearse, capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment(house.path / "a", OLD)
    b = make_environment(house.path / "b")
    assert rehearse(*ONE) == ExitCode.OK
    (found,) = results()
    assert found["outcome"] == "works"
    assert found["why"] == "5 of 5 greedy texts are right"
    assert found["sides_agree"] is True
    assert found["versions"] == {
        "prefill[0]": {"vllm": "0.32.0", "nixl": "1.4.1"},
        "decode[0]": {"vllm": "0.32.0", "nixl": "1.5.1"},
        "router": {"vllm-router": "0.1.17"},
    }
    assert "| A | B | B | on | works |" in Path("out/rehearsal.md").read_text()

    (b / "bin" / "vllm").write_text("#!/bin/sh\nexit 3\n")  # would not start again
    capsys.readouterr()
    assert rehearse(*ONE) == ExitCode.OK
    assert "1 combination, 0 to stand up" in capsys.readouterr().out
    assert results() == [found]

    assert rehearse(*ONE, "--to", "current serve-args:--enforce-eager") == ExitCode.BAD_INPUT
    assert "results of another rehearsal cannot be continued" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "outcome", "why"),
    [
        ({"wrong_transfer": True}, "corrupts", "5 of 5 greedy texts at HTTP 200 are those of"),
        pytest.param(
            {"exit_at_start": 3}, "does not start", "exited with code 3", marks=pytest.mark.slow
        ),
        pytest.param(
            {"no_transfer": True}, "refuses", "counted 0 NIXL transfers", marks=pytest.mark.slow
        ),
    ],
    ids=["corrupts", "does not start", "moves no KV cache"],
)
def test_a_mixture_that_does_not_serve_is_a_fail_with_its_cause(
    house: House,
    rehearse: Rehearse,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    outcome: str,
    why: str,
) -> None:
    monkeypatch.setattr("pytest_pdserve.serving.warmup.COUNTER_S", 0.3)
    make_environment(house.path / "a", OLD)
    make_environment(house.path / "b", vllm=fault)
    assert rehearse(*ONE) == ExitCode.FAIL
    (found,) = results()
    assert found["outcome"] == outcome
    assert why in found["why"]


@pytest.mark.slow
def test_a_handshake_that_is_refused_names_the_check(house: House, rehearse: Rehearse) -> None:
    log = Path(__file__).parents[1] / "data" / "logs" / "seen_0.32_handshake_decode.txt"
    make_environment(house.path / "a", OLD)
    make_environment(house.path / "b", vllm={"refuse_handshake": str(log)})
    assert rehearse(*ONE) == ExitCode.FAIL
    (found,) = results()
    assert found["outcome"] == "refuses"
    assert "refused the KV handshake" in found["why"]


@pytest.mark.slow
def test_a_request_that_is_never_answered_hangs_within_its_limit(
    house: House, rehearse: Rehearse
) -> None:
    house.system(limits={"warmup_s": 0.5})
    make_environment(house.path / "a", OLD)
    make_environment(house.path / "b", vllm={"first_ms": 600_000})
    assert rehearse(*ONE) == ExitCode.FAIL
    (found,) = results()
    assert found["outcome"] == "hangs"
    assert "did not answer within 0.5 s" in found["why"]


@pytest.mark.slow
def test_an_environment_that_serves_other_versions_than_it_has_is_an_error(
    house: House, rehearse: Rehearse, capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment(house.path / "a", OLD)
    make_environment(house.path / "b")
    elsewhere = make_environment(house.path / "c", {**VERSIONS, "nixl": "1.3.0"})
    (house.path / "b" / "bin" / "vllm").write_text(f'#!/bin/sh\nexec "{elsewhere}/bin/vllm" "$@"\n')
    assert rehearse(*ONE) == ExitCode.ERROR
    said = capsys.readouterr().err
    assert "decode[0] has loaded nixl 1.3.0, expected 1.5.1 of stack" in said


def test_a_folder_is_used_by_one_rehearsal_at_a_time_and_not_read_meanwhile(
    house: House, rehearse: Rehearse, capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment(house.path / "a", OLD)
    make_environment(house.path / "b")
    Path("out").mkdir()
    Path("out/rehearsal.json").write_text("half of a fi")  # as the other one writes it
    with FileLock("out/.lock"):
        assert rehearse(*ONE) == ExitCode.BAD_INPUT
    *_, said = capsys.readouterr().err.splitlines()
    assert said == "pdserve: out is in use by another pdserve rehearse; wait for it"


def test_a_plan_is_printed_and_nothing_starts(
    house: House, rehearse: Rehearse, capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment(house.path / "a", {**OLD, "vllm-router": "0.1.16"})
    make_environment(house.path / "b")
    assert rehearse("--plan") == ExitCode.OK
    out = capsys.readouterr().out
    assert "they differ in nixl, vllm-router" in out
    assert "8 combinations, 8 to stand up" in out
    assert not Path("out").exists()


def test_named_combinations_are_planned_and_others_refused(
    house: House, rehearse: Rehearse, capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment(house.path / "a", OLD)
    make_environment(house.path / "b")
    assert rehearse("--plan", "--only", "prefill-B-decode-A-router-B-hash-off") == ExitCode.OK
    assert "1 combination, 1 to stand up" in capsys.readouterr().out
    assert rehearse("--plan", "--only", "prefill-C") == ExitCode.BAD_INPUT
    assert "--only 'prefill-C': expected one of prefill-A-decode-B" in capsys.readouterr().err


def test_two_stacks_that_are_the_same_are_bad_input(
    house: House, rehearse: Rehearse, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in ("a", "b"):
        make_environment(house.path / side)
    assert rehearse() == ExitCode.BAD_INPUT
    assert "are the same versions and arguments" in capsys.readouterr().err
