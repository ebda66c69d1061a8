"""How nights join the baseline by themselves, and which never do."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import WITHOUT_UNUSED
from tests.support.simulated import DP
from tests.support.simulated import ROOT
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values
from tests.support.simulated import lines

LOCK = ".sweep.json.lock"


def starts(sim: SimulatedProject) -> list[int]:
    """Fresh starts of each night of the one cell."""
    return [night.get("starts", 1) for night in sim.nights("dp")]


@pytest.mark.parametrize("first_runs", [3, 1])
def test_the_first_night_is_measured_on_as_many_starts_as_are_asked(
    first_runs: int, sim: SimulatedProject
) -> None:
    result = sim.run(*DP, "--pdserve-first-runs", str(first_runs))
    result.assert_outcomes(passed=1)
    assert starts(sim) == [first_runs]
    assert sim.starts() == [("dp", 512, start) for start in range(first_runs)]
    result.stdout.fnmatch_lines([f"NEW: 1 cell, recorded as reference in {sim.baseline}"])


@pytest.mark.slow
@pytest.mark.parametrize(("first_runs", "limit"), [("3", 8), ("1", 16)])
def test_a_first_night_of_one_start_has_limits_twice_as_wide(
    first_runs: str, limit: int, sim: SimulatedProject
) -> None:
    sim.run(*DP, "--pdserve-first-runs", first_runs)
    sim.system(night=1, drift_per_night=0.5, floors={"output_throughput": 10.0})
    (line,) = lines(sim.run(*DP), "FAIL: ")
    assert f" (1 night, provisional): +50 %, limit +{limit} %. " in line


def test_a_value_of_the_first_night_is_the_median_of_its_starts(sim: SimulatedProject) -> None:
    sim.topologies = "1p3d"  # its router chooses instances anew on every start
    sim.run("-k", "512-256")
    measured = sorted(record["metrics"]["output_throughput"] for record in sim.records())
    assert measured[0] < measured[2]
    (night,) = sim.nights("1p3d")
    assert night["values"]["output_throughput"] == pytest.approx(measured[1])


@pytest.mark.slow
def test_nights_that_pass_join_one_a_night(sim: SimulatedProject) -> None:
    for night in (0, 1, 1, 2):
        sim.system(night=night)
        result = sim.run(*DP)
        assert result.ret == 0
    sessions = json.loads(sim.baseline.read_text())["sessions"]
    assert [session["simulated_night"] for session in sessions] == [0, 1, 2]
    assert [night["session"] for night in sim.nights("dp")] == [each["id"] for each in sessions]


def test_a_cell_of_twenty_nights_stays_as_it_is(known: SimulatedProject) -> None:
    before = known.baseline.read_bytes()
    known.system(night=1)
    assert known.run(*DP).ret == 0
    assert known.baseline.read_bytes() == before


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("slower", "verdict"), [(0.06, "SUSPICIOUS"), (0.2, "FAIL")], ids=["suspicious", "worse"]
)
def test_nights_that_are_worse_do_not_join(
    slower: float, verdict: str, sim: SimulatedProject, clean: Values
) -> None:
    sim.draw(clean, nights=2)
    sim.system(night=1, drift_per_night=slower)
    assert lines(sim.run(*DP), f"{verdict}: ")
    assert len(sim.nights("dp")) == 2


def test_an_expected_change_does_not_join(sim: SimulatedProject, clean: Values) -> None:
    sim.draw(clean, nights=2)
    sim.expect()
    sim.system(night=1, drift_per_night=0.2)
    sim.run(*DP).assert_outcomes(xfailed=1)
    assert len(sim.nights("dp")) == 2


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("chosen", [(), ("-k", "not whole")], ids=["judged", "no test judges it"])
def test_cells_of_a_topology_that_is_worse_as_a_whole_do_not_join(
    chosen: tuple[str, ...], sim: SimulatedProject, clean: Values
) -> None:
    sim.topologies = "dp"
    sim.draw(clean, nights=2)
    sim.system(night=1, drift_per_night=0.045)  # cells pass, as their limit is 8 %
    result = sim.run(*chosen)
    assert [line.split()[-1] for line in lines(result, " dp ")] == ["PASS"] * 3
    assert len(sim.nights("dp")) == 2


@pytest.mark.slow
def test_the_night_of_a_cell_that_ran_again_is_its_first_run(sim: SimulatedProject) -> None:
    sim.topologies = "1p1d"
    sim.run("-k", "512-256")
    sim.system(night=1, bad_node="node2", bad_node_factor=1.1)
    sim.run("-k", "512-256")
    first, second = sim.nights("1p1d")
    assert second["values"]["mean_itl_ms"] > first["values"]["mean_itl_ms"] * 1.05
    assert second.get("starts", 1) == 1


def test_no_record_writes_nothing(sim: SimulatedProject, clean: Values) -> None:
    result = sim.run(*DP, "--pdserve-no-record")
    result.stdout.fnmatch_lines(["NEW: 1 cell, recorded nowhere (--pdserve-no-record)"])
    assert not sim.baseline.exists()
    sim.draw(clean, nights=2)
    before = sim.baseline.read_bytes()
    sim.system(night=1)
    sim.run(*DP, "--pdserve-no-record").assert_outcomes(passed=1)
    assert sim.baseline.read_bytes() == before


def test_a_host_keeps_its_own_references(sim: SimulatedProject) -> None:
    for night in (0, 1):
        sim.system(night=night, judgement={"host_references": True})
        assert sim.run(*DP).ret == 0
    assert not sim.baseline.exists()
    (path,) = sim.path.glob("state/pytest-pdserve/baselines/sim/*/sweep.json")
    (cell,) = json.loads(path.read_text())["cells"]["dp"].values()
    assert len(cell["nights"]) == 2


def test_a_baseline_that_cannot_be_written_at_the_end_fails_the_session(
    sim: SimulatedProject, clean: Values
) -> None:
    sim.draw(clean, nights=2)
    sim.baseline.with_name(LOCK).mkdir()
    result = sim.run(*DP)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "tonight's PASS cells did not join the baseline: "
            f"{sim.baseline} cannot be locked: Is a directory; make {sim.baseline.parent} writable"
        ]
    )


def test_a_new_cell_that_cannot_be_written_is_an_error(sim: SimulatedProject) -> None:
    sim.baseline.with_name(LOCK).mkdir()
    result = sim.run(*DP, "--pdserve-first-runs", "1")
    result.assert_outcomes(errors=1)
    assert f"{sim.baseline} cannot be locked: Is a directory" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


@pytest.mark.slow
def test_a_system_of_the_installed_package_has_its_baseline_in_the_project(
    sim: SimulatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = sim.path / "site"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pytest_pdserve", site / "pytest_pdserve", ignore=ignored)
    shutil.move(sim.baseline.parent, site / "pytest_pdserve" / "baselines" / "sim")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    asked = ["suites", "--system", "sim", "--topology", "dp", *DP, *WITHOUT_UNUSED]
    for _ in range(2):
        result = sim.pytester.run(sys.executable, "-m", "pytest", *asked)
        assert result.ret == 0
    assert starts(sim) == [3]
    assert list(Path(site).rglob("sweep.json")) == []


@pytest.mark.slow
def test_a_new_system_is_judged_from_its_first_night_on(sim: SimulatedProject) -> None:
    """Night 0 is NEW, nights 1 to 25 are clean, and 10 % on night 26 is found; 0.8 % noise."""
    sim.topologies = "dp"
    noise: dict[str, Any] = {"run_cv": 0.008, "seed": 3}
    for night in range(26):
        sim.system(night=night, **noise)
        result = sim.run()
        assert (night, result.ret) == (night, 0)
        told = lines(result, "NEW: 3 cells")
        assert bool(told) is (night == 0)
    assert starts(sim) == [3, *[1] * 19]
    sim.system(night=26, drift_per_night=1.10 ** (1 / 26) - 1, **noise)
    result = sim.run()
    assert result.parseoutcomes() == {"failed": 4}
    assert all("(20 nights): " in line for line in lines(result, "FAIL: dp random"))
