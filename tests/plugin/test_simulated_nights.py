"""Nights as their sessions tell them, on the simulated cluster, whose numbers are exact."""

from __future__ import annotations

import pytest

from tests.support.simulated import CELL
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values
from tests.support.simulated import lines
from tests.support.simulated import workload


def test_a_clean_night_passes_with_one_run_a_cell(known: SimulatedProject) -> None:
    result = known.run()
    assert result.parseoutcomes() == {"passed": 6 + 2}
    assert {start for _, _, start in known.starts()} == {0}
    result.stdout.fnmatch_lines(
        [
            "all workloads: random, n64",
            " 1p3d  *  512-256 *PASS",
            " dp  *  2048-256 *PASS",
            "judged: 6 cells in 6 runs, 0 of them reruns",
        ]
    )


def test_a_slow_cell_fails_and_says_by_how_much_and_how_sure(known: SimulatedProject) -> None:
    known.system(night=1, drift_per_night=0.06)
    result = known.run(*DP)
    assert result.parseoutcomes() == {"failed": 1, "deselected": 7}
    said = (
        "mean_itl_ms 24.46 ms, reference 23.08 ms (20 nights): +6 %, limit +4 %. Confirmed by 3 "
        "starts (+6 %). First seen tonight."
    )
    result.stdout.fnmatch_lines([f"E  *BaselineRegression: {said} [[]dp, {workload(512)}, sim]"])
    (line,) = lines(result, "FAIL: ")
    assert line == (
        f"FAIL: {CELL}: {said} Also output_throughput -5.7 %, mean_tpot_ms +6 %, mean_e2el_ms +6 %."
    )
    assert lines(result, "judged: ") == ["judged: 1 cell in 3 runs, 2 of them reruns"]


@pytest.mark.slow
def test_failures_come_first_and_the_largest_of_them(sim: SimulatedProject, clean: Values) -> None:
    slow = {("1p3d", 512): 0.05, ("dp", 512): 0.03, ("dp", 1024): 0.2}
    sim.draw(clean, slow=slow)
    result = sim.run("-k", "not whole")
    shown = [
        line.split(": ")[:2] for line in result.outlines if ": mean_" in line or ": out" in line
    ]
    verdicts = [each for each in shown if each[0] in ("FAIL", "SUSPICIOUS")]
    assert verdicts == [
        ["FAIL", f"dp {workload(1024)}"],
        ["FAIL", f"1p3d {workload(512)}"],
        ["SUSPICIOUS", CELL],
    ]


def test_a_young_baseline_has_wide_limits_and_says_so(sim: SimulatedProject, clean: Values) -> None:
    sim.draw(clean, nights=3)
    sim.system(night=1, drift_per_night=0.06)
    result = sim.run(*DP)
    (line,) = lines(result, "SUSPICIOUS: ")
    assert "(3 nights, provisional): +6 %, limit +8 %. " in line


@pytest.mark.slow
def test_a_second_suspicious_night_fails(known: SimulatedProject) -> None:
    known.system(night=1, drift_per_night=0.03)
    first = known.run(*DP, "-v")
    first.stdout.fnmatch_lines(["*::test_sweep[[]dp-512-256] SUSPICIOUS *"])
    assert first.parseoutcomes() == {"passed": 1, "deselected": 7}
    (line,) = lines(first, "SUSPICIOUS: ")
    assert line.startswith(
        f"SUSPICIOUS: {CELL}: mean_itl_ms 23.77 ms, reference 23.08 ms (20 nights): +3 %, limit "
        "+4 %. Confirmed by 3 starts (+3 %). More than two thirds of the limit; the next night "
        "settles it: FAIL if it is suspicious too."
    )
    known.system(night=2, drift_per_night=0.015)
    second = known.run(*DP)
    assert second.parseoutcomes() == {"failed": 1, "deselected": 7}
    (line,) = lines(second, "FAIL: ")
    assert "Seen on 2 nights in a row, first on simulated night 1." in line


@pytest.mark.slow
def test_a_suspicious_night_that_is_followed_by_a_clean_one_is_over(
    known: SimulatedProject,
) -> None:
    known.system(night=1, drift_per_night=0.03)
    known.run(*DP)
    known.system(night=2)
    assert known.run(*DP).parseoutcomes() == {"passed": 1, "deselected": 7}
    known.system(night=3, drift_per_night=0.01)
    assert lines(known.run(*DP), "SUSPICIOUS: ")


def test_strict_fails_what_is_suspicious(known: SimulatedProject) -> None:
    known.system(night=1, drift_per_night=0.03)
    result = known.run(*DP, "--pdserve-strict")
    assert result.parseoutcomes() == {"failed": 1, "deselected": 7}
    result.stdout.fnmatch_lines(["SUSPICIOUS: mean_itl_ms *", "(--pdserve-strict)"])


def test_a_cell_that_is_slow_on_one_node_only_passes_with_a_second_run(
    sim: SimulatedProject,
) -> None:
    sim.topologies = "1p1d"
    chosen = ("-k", "512-256")
    sim.run(*chosen)  # NEW
    sim.system(night=1, bad_node="node2", bad_node_factor=1.1)  # it decodes on the first start
    result = sim.run(*chosen)
    assert result.parseoutcomes() == {"passed": 1, "deselected": 3}
    assert lines(result, "judged: ") == ["judged: 1 cell in 2 runs, 1 of them reruns"]
    assert lines(result, " 1p1d")[0].endswith("PASS")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nights", "verdicts"),
    [(1, {"passed": 6 + 2}), (2, {"passed": 6, "failed": 2})],
    ids=["suspicious on the first night", "a failure on the second"],
)
def test_three_percent_over_a_topology_are_found_where_no_cell_sees_them(
    nights: int, verdicts: dict[str, int], known: SimulatedProject
) -> None:
    names = ("mean_itl_ms", "mean_tpot_ms", "mean_e2el_ms", "output_throughput")
    for night in range(1, nights + 1):
        drift = 1.03 ** (1 / night) - 1
        known.system(night=night, drift_per_night=drift, floors=dict.fromkeys(names, 0.05))
        result = known.run()
    assert result.parseoutcomes() == verdicts
    status = "SUSPICIOUS" if nights == 1 else "FAIL"
    (whole,) = lines(result, f"{status}: dp as a whole: ")
    assert " over 3 cells, reference of 20 nights: -2.9 %, limit -2.4 %. " in whole


@pytest.mark.slow
def test_a_topology_fails_at_once_beyond_the_floors_of_its_cells(known: SimulatedProject) -> None:
    known.system(night=1, drift_per_night=0.06)
    result = known.run()
    assert result.parseoutcomes() == {"failed": 6 + 2}
    (line,) = lines(result, "FAIL: dp as a whole: ")
    assert line == (
        "FAIL: dp as a whole: output_throughput over 3 cells, reference of 20 nights: -5.7 %, "
        "limit -2 %. Confirmed by 3 starts (-5.7 %). First seen tonight. Also mean_e2el_ms "
        "+6 %, mean_itl_ms +6 %, mean_tpot_ms +6 %, mean_ttft_ms +6 %."
    )


@pytest.mark.slow
def test_the_cells_of_a_topology_that_is_worse_run_again_on_shared_starts(
    known: SimulatedProject,
) -> None:
    known.topologies = "dp"
    known.system(night=1, drift_per_night=0.06)
    known.run()
    assert known.starts() == [("dp", n, start) for start in range(3) for n in (512, 1024, 2048)]


def test_a_topology_is_never_green_without_its_cells(known: SimulatedProject) -> None:
    chosen = ("-k", "test_whole_topology")
    result = known.run(*chosen, "-rs")
    assert result.parseoutcomes() == {"skipped": 2, "deselected": 6}
    result.stdout.fnmatch_lines(
        ["SKIPPED *NOT JUDGED: dp as a whole: fewer than two of its cells have a reference and ran"]
    )
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    strict = known.run(*chosen, "--pdserve-strict")
    assert strict.parseoutcomes() == {"failed": 2, "deselected": 6}
