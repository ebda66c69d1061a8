"""A session on the simulated system: the same records, and every face says what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.store import load_record
from tests.support.said import said_by

ROOT = Path(__file__).parents[2]
SWEEP = ("suites/sweep", "--system", "simulated", "--topology", "1p3d", "-k", "512-256")


@pytest.fixture
def project(
    loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    for suite in ("smoke", "sweep"):
        shutil.copytree(ROOT / "suites" / suite, pytester.path / "suites" / suite)
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of this checkout, whichever is installed
    return pytester


def test_a_cell_is_recorded_then_judged_and_says_simulated(project: pytest.Pytester) -> None:
    first, second = (
        project.runpytest_inprocess(*SWEEP, "--pdserve-runs", "runs") for _ in range(2)
    )
    for result, verdict in ((first, "NEW"), (second, "PASS")):
        result.assert_outcomes(passed=1, deselected=8)
        result.stdout.fnmatch_lines(
            ["SIMULATED, no server ran: *", f" 1p3d *random-512-256-n1024 *{verdict}"]
        )
        result.stdout.fnmatch_lines(["note: simulated: *no server ran*"])
    paths = sorted(project.path.glob("runs/*/1p3d/random-512-256-n1024.0.record.json"))
    one, two = map(load_record, paths)
    assert one.simulated
    assert one.metrics == two.metrics
    assert one.cluster == {"kind": "simulated", "night": 0}
    assert one.session.simulated_night == two.session.simulated_night == 0
    assert one.versions.keys() <= {"pytest-pdserve", "commit"}
    assert paths[0].with_name(str(one.requests)).stat().st_size > 0
    assert json.loads(paths[0].read_text())["simulated"] is True


def test_what_needs_servers_is_skipped(project: pytest.Pytester) -> None:
    result = project.runpytest("suites/smoke", "--system", "simulated", "-rs")
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"skipped"}
    result.stdout.fnmatch_lines(["*needs servers that answer; simulated is simulated*"])


def test_a_size_that_was_never_fitted_is_one_sentence(project: pytest.Pytester) -> None:
    result = project.runpytest("suites/sweep", "--system", "simulated", "--topology", "dp-tp4")
    result.stdout.fnmatch_lines(["*'dp-tp4' has engines of 4 GPUs, but the simulation was fitted*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_explore_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--input-len", "256", "--output-len", "32", "--num-prompts", "64", "--nodes", "3"]
    assert main(["plan", "--explore", "--system", "simulated", *asked]) == 0
    said = capsys.readouterr().out
    assert said.startswith("SIMULATED: 3 nodes")
    for topology in ("dp", "route3", "1p2d", "2p1d"):
        assert f"\n {topology} " in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--system", "p5-efa"], "--explore simulates, but system 'p5-efa' is of kind 'slurm'"),
        (["--system", "simulated", "--rate", "0"], "--rate 0: expected"),
    ],
    ids=["a real system", "no rate"],
)
def test_a_question_without_sense_is_bad_input(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--explore", *arguments]) == 4
    assert said_by(capsys).err.startswith(f"pdserve: {said}")


def test_simulated_results_are_not_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    result.write_text(
        json.dumps(
            {
                "backend": "simulated",
                "completed": 1,
                "duration": 1.0,
                "total_input_tokens": 4,
                "total_output_tokens": 4,
            }
        )
    )
    arguments = ["--topology", "1p3d", "--runs", str(tmp_path / "runs"), str(result)]
    assert main(["import", "--system", "p5-efa", *arguments]) == 4
    assert "was simulated: no server ran" in capsys.readouterr().err
    assert main(["import", "--system", "simulated", *arguments]) == 4
    assert "'simulated' is simulated" in capsys.readouterr().err
