"""The client ``vllm``: one process measures every cell, and each way in which it can end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from tests.support.house import STUBS
from tests.support.house import WORKLOAD
from tests.support.house import House

TWO = {"input_lens": [32, 64], "output_lens": [8], "num_prompts": 8, "max_concurrency": 4}
OTHER = "random-64-8-n8-c4"
SWEEP = ("--topology", "1p1d")


@pytest.fixture
def worker_house(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A project with a system ``stub`` whose client is the worker, and two cells."""
    monkeypatch.setenv("PYTHONPATH", str(STUBS / "package"))
    house.system(bench={"client": "vllm"}, sweep=TWO)
    house.suites("sweep")
    return house


def folder(house: House) -> Path:
    (found,) = house.runs.glob("*/client")
    return found


def test_one_process_measures_every_cell_with_prompts_made_before(worker_house: House) -> None:
    worker_house.run(*SWEEP).assert_outcomes(passed=2, skipped=1)
    records = worker_house.records()
    assert [each["client_kind"] for each in records] == ["vllm"] * 2
    assert [each["versions"]["client"] for each in records] == ["0.99.0"] * 2
    (worker,) = folder(worker_house).iterdir()
    made = (worker / "prompts.log").read_text()
    assert made.count("stub: makes 8 prompts of") == 2
    # The tokenizer is kept, and a run finds the prompts that were made while servers started.
    assert made.count("stub: loads the tokenizer") == 1
    for record in records:
        client, program = record["processes"][-1], record["processes"][0]["argv"][0]
        assert client["argv"][1:4] == [str(worker / "vllm_worker.py"), "--program", program]
        assert client["argv"][5:7] == ["--base-url", record["endpoint"]]
        log = next(worker_house.runs.glob(f"*/{client['log']}")).read_text()
        assert "stub: bench starts" in log
        assert "makes" not in log
    assert not (worker / "prompts").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_in_a_cell_is_named_and_started_anew(
    worker_house: House, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    worker_house.faults(bench={"kill_once": str(killed)})
    result = worker_house.run(*SWEEP)
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    said = "the client process was ended by signal 9 (SIGKILL) during the run"
    assert f"bench {WORKLOAD}: {said}" in result.stdout.str()
    (record,) = worker_house.records()
    assert record["workload"]["input_len"] == 64
    assert sorted(each.name for each in folder(worker_house).iterdir()) == ["worker-1", "worker-2"]


@pytest.mark.slow
def test_a_worker_that_ends_between_two_runs_is_started_anew(
    worker_house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSTUB_LEAVE_ONCE", str(tmp_path / "left"))
    worker_house.run(*SWEEP).assert_outcomes(passed=2, skipped=1)
    assert sorted(each.name for each in folder(worker_house).iterdir()) == ["worker-1", "worker-2"]


def test_a_client_that_fails_is_told_with_its_log(worker_house: House) -> None:
    worker_house.faults(bench={"exit_bench": 3})
    result = worker_house.run(*SWEEP, "-k", "32-8")
    assert f"bench {WORKLOAD} exited with code 3; " in result.stdout.str()
    assert "stub: bench cannot" in result.stdout.str()


@pytest.mark.slow
def test_a_client_that_hangs_is_ended(worker_house: House) -> None:
    worker_house.faults(bench={"hang": True})
    worker_house.system(
        bench={"client": "vllm"}, sweep=TWO, limits={"bench_start_s": 3, "slowest_tok_s": 10_000}
    )
    result = worker_house.run(*SWEEP, "-k", "32-8")
    assert f"bench {WORKLOAD} did not end within 3 s" in result.stdout.str()


def test_a_server_that_dies_under_it_is_what_is_named(worker_house: House) -> None:
    worker_house.faults(decode_0={"exit_after_streams": 6})
    result = worker_house.run(*SWEEP, "-k", "32-8")
    result.assert_outcomes(errors=1)
    assert "decode[0] on local1 exited with code " in result.stdout.str()


@pytest.mark.parametrize("servers_answer", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_vllm_whose_internals_moved_ends_the_session_and_names_the_other_client(
    servers_answer: bool, worker_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSTUB_MOVED", "1")
    worker_house.faults(every={"never_ready": not servers_answer})
    result = worker_house.run(*SWEEP)
    assert result.ret == 4
    why = "[bench] client = 'vllm' cannot be used: ImportError: cannot import name 'main_async'"
    said = [line for line in result.stdout.lines if why in line]
    assert said
    assert "; set client = 'vllm-command' in " in result.stdout.str()
    assert worker_house.records() == []


@pytest.mark.slow
def test_references_of_another_client_are_kept_and_not_compared(
    worker_house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    only = (*SWEEP, "-k", "32-8")
    worker_house.system(bench={"client": "vllm-command"})
    assert "NEW: 1 cell, recorded" in worker_house.run(*only).stdout.str()
    worker_house.system(bench={"client": "vllm"})
    said = worker_house.run(*only).stdout.str()
    assert "NEW: 1 cell, recorded" in said
    assert "client vllm, to which references of vllm-command are not compared" in said
    (path,) = worker_house.path.rglob("sweep.json")
    (night, other) = json.loads(path.read_text())["cells"]["1p1d"][WORKLOAD]["nights"]
    assert (night.get("client"), other["client"]) == (None, "vllm")
    for client in ("vllm", "vllm-command"):
        worker_house.system(bench={"client": client})
        said = worker_house.run(*only).stdout.str()
        assert "NEW" not in said
        assert "PASS" in said
    # What is planned knows the references of the client that will measure.
    worker_house.ini("pdserve_first_runs = 3")
    for client, starts in (("vllm", "1 start "), ("precise", "3 starts ")):
        worker_house.system(bench={"client": client})
        capsys.readouterr()
        assert main(["plan", "--topology", "1p1d", "--system", "stub"]) == 0
        assert f": {starts}" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.slow
def test_the_command_of_another_environment_is_asked_for_its_version_once(house: House) -> None:
    python = house.path / "python"
    asked = house.path / "asked"
    python.write_text(
        "#!/bin/sh\n"
        'case "$1" in *.py)\n'
        f'echo >> "{asked}"; echo a warning; echo \'{{"vllm": "9.8.7"}}\'; exit;; esac\n'
        f'shift 2; exec "{house.programs["vllm"]}" "$@"\n'
    )
    python.chmod(0o755)
    house.system(bench={"client": "vllm-command", "python": str(python)}, sweep=TWO)
    house.suites("sweep")
    house.run(*SWEEP).assert_outcomes(passed=2, skipped=1)
    assert [each["versions"]["client"] for each in house.records()] == ["9.8.7"] * 2
    assert asked.read_text() == "\n"
    assert len([*house.runs.glob("*/*/client-versions.log")]) == 1
