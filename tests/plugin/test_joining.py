"""Nights that join the baseline by themselves, and sessions that do so at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.house import WITHOUT_UNUSED
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values
from tests.support.simulated import lines


def test_a_new_cell_has_a_first_night_of_three_starts(sim: SimulatedProject) -> None:
    result = sim.run(*DP)
    (night,) = sim.nights("dp")
    assert night["starts"] == 3
    assert night["session"] == sim.records()[0]["session"]["id"]
    assert lines(result, "NEW: ")[0].startswith("NEW: 1 cell, ")


def test_a_new_cell_is_recorded_before_the_next_test(sim: SimulatedProject) -> None:
    (sim.path / "suites" / "sweep" / "test_zzz.py").write_text(
        "from pathlib import Path\n\n\n"
        "def test_recorded(request):\n"
        '    assert "random-512-256-n64" in Path("baselines/sim/sweep.json").read_text()\n'
    )
    result = sim.run("-k", "recorded or (dp and 512-256)", "--pdserve-first-runs", "1")
    result.assert_outcomes(passed=2, deselected=7)


@pytest.mark.slow
def test_a_night_that_passes_joins(sim: SimulatedProject) -> None:
    for night in range(3):
        sim.system(night=night)
        sim.run(*DP).assert_outcomes(passed=1, deselected=7)
    assert [night.get("starts", 1) for night in sim.nights("dp")] == [3, 1, 1]


def test_a_second_session_of_a_night_does_not_join(sim: SimulatedProject) -> None:
    for night in (0, 1, 1):
        sim.system(night=night)
        sim.run(*DP)
    assert len(sim.nights("dp")) == 2


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("arguments", "by"),
    [((), 0.06), ((), 0.035), (("--pdserve-no-record",), 0.0)],
    ids=["FAIL", "SUSPICIOUS", "not recorded"],
)
def test_a_night_that_does_not_pass_or_is_not_recorded_does_not_join(
    arguments: Sequence[str], by: float, sim: SimulatedProject, clean: Values
) -> None:
    sim.draw(clean, nights=15)
    before = sim.baseline.read_text()
    sim.system(night=1, drift_per_night=by)
    sim.run(*DP, *arguments)
    assert sim.baseline.read_text() == before


def test_a_night_that_is_expected_to_be_slow_does_not_join(
    sim: SimulatedProject, clean: Values
) -> None:
    sim.draw(clean, nights=15)
    before = sim.baseline.read_text()
    sim.expect(topologies=["dp"])
    sim.system(night=1, drift_per_night=0.06)
    sim.run(*DP).assert_outcomes(xfailed=1, deselected=7)
    assert sim.baseline.read_text() == before


def test_cells_of_a_topology_that_is_worse_as_a_whole_do_not_join(
    sim: SimulatedProject, clean: Values
) -> None:
    slow = {("dp", length): 0.025 for length in (512, 1024, 2048)}
    sim.draw(clean, slow=slow, nights=15)
    sim.run().assert_outcomes(passed=8)
    counts = {t: {len(sim.nights(t, n)) for n in (512, 1024, 2048)} for t in ("1p3d", "dp")}
    assert counts == {"1p3d": {16}, "dp": {15}}


def test_the_twentieth_night_is_the_last_that_joins(sim: SimulatedProject, clean: Values) -> None:
    sim.draw(clean, nights=19)
    for night in range(2):
        sim.system(night=night)
        sim.run(*DP).assert_outcomes(passed=1, deselected=7)
    assert len(sim.nights("dp")) == 20


def test_a_baseline_that_breaks_during_a_session_is_told_in_the_summary(
    sim: SimulatedProject, clean: Values
) -> None:
    sim.draw(clean, nights=15)
    (sim.path / "suites" / "sweep" / "test_zzz.py").write_text(
        "from pathlib import Path\n\n\n"
        "def test_break():\n"
        '    Path("baselines/sim/sweep.json").write_text("{")\n'
    )
    result = sim.run("-k", "break or (dp and 512-256)")
    result.assert_outcomes(passed=2, deselected=7)
    (said,) = lines(result, "tonight's PASS cells did not join the baseline: ")
    assert f"{sim.baseline} is not valid JSON" in said
    assert sim.baseline.read_text() == "{"


JOIN = """
import sys
from pathlib import Path
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.baselines import join_night
from pytest_pdserve.values.baseline import Baseline, Night, Source

path, name = Path(sys.argv[1]), sys.argv[2]
system = load_system("sim", [path.parents[1]])
empty = Baseline(system="sim", suite="sweep", source=str(path))
print("ready", flush=True)
sys.stdin.readline()
for cell in range(5):
    night = Night(session=name, values={"mean_itl_ms": 10.0})
    joining = {("dp", f"cell-{cell}"): (night, {})}
    join_night(path, empty, joining, source=Source(id=name), system=system)
"""


@pytest.mark.slow
def test_processes_that_join_at_once_lose_no_night(sim: SimulatedProject) -> None:
    names = [f"session-{number}" for number in range(3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, str(sim.baseline), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    cells = json.loads(sim.baseline.read_text())["cells"]["dp"]
    there = {name: sorted(n["session"] for n in cell["nights"]) for name, cell in cells.items()}
    assert there == {f"cell-{cell}": names for cell in range(5)}


@pytest.mark.slow
def test_sessions_of_two_topologies_at_once_share_one_baseline(sim: SimulatedProject) -> None:
    shared = [sys.executable, "-m", "pytest", "suites", "--system", "sim", *WITHOUT_UNUSED]
    processes = [
        subprocess.Popen(
            [*shared, "--topology", topology, "-k", "512-256"],
            cwd=sim.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for topology in ("1p3d", "dp")
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    cells = json.loads(sim.baseline.read_text())["cells"]
    assert {topology: len(there) for topology, there in cells.items()} == {"1p3d": 1, "dp": 1}
