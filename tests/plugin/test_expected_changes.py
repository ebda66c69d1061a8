"""``expected.toml``: what is known to be worse, as a session tells it."""

from __future__ import annotations

import pytest

from tests.support.simulated import CELL
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject
from tests.support.simulated import lines

ITL_LIKE = ["mean_itl_ms", "mean_tpot_ms", "mean_e2el_ms", "output_throughput"]
ENTRY = "entry 1 (ann: vllm#1)"


def slower(known: SimulatedProject, by: float = 0.06) -> None:
    known.system(night=1, drift_per_night=by)


def test_what_is_expected_is_an_xfail_and_runs_once(known: SimulatedProject) -> None:
    known.expect(topologies=["dp"], cells=["512-256"], metrics=ITL_LIKE)
    slower(known)
    result = known.run(*DP, "-rx")
    assert result.parseoutcomes() == {"xfailed": 1, "deselected": 7}
    assert known.starts() == [("dp", 512, 0)]
    (line,) = lines(result, "EXPECTED: ")
    assert line.startswith(
        f"EXPECTED: {CELL}: mean_itl_ms 24.46 ms, reference 23.08 ms (20 nights): +6 %, limit "
        "+4 %. Seen in 1 start; it takes 3 to confirm. Expected until 9999-12-31 (ann: vllm#1)."
    )


def test_what_is_larger_than_expected_fails(known: SimulatedProject) -> None:
    known.expect(metrics=ITL_LIKE, max_worse=0.05)
    slower(known)
    result = known.run(*DP)
    assert result.parseoutcomes() == {"failed": 1, "deselected": 7}
    assert lines(result, f"FAIL: {CELL}: mean_itl_ms 24.46 ms")


def test_what_is_expected_of_some_metrics_does_not_cover_others(known: SimulatedProject) -> None:
    known.expect(metrics=["mean_itl_ms", "mean_tpot_ms"])
    slower(known)
    (line,) = lines(known.run(*DP), "FAIL: ")
    assert line.startswith(f"FAIL: {CELL}: output_throughput 2464 tok/s")


@pytest.mark.slow
def test_an_entry_without_cells_covers_the_topology_as_a_whole(known: SimulatedProject) -> None:
    known.topologies = "dp"
    known.expect()
    slower(known)
    assert known.run().parseoutcomes() == {"xfailed": 3 + 1}


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True], ids=["", "strictly"])
def test_an_entry_that_has_expired_covers_nothing(known: SimulatedProject, *, strict: bool) -> None:
    known.expect(until="2026-01-31")
    result = known.run(*DP, *(["--pdserve-strict"] if strict else []))
    result.assert_outcomes(passed=1)
    assert result.ret == strict
    said = f"{known.expected}: {ENTRY} expired on 2026-01-31 and covers nothing; remove it"
    assert said in result.outlines
    slower(known)
    assert known.run(*DP).parseoutcomes() == {"failed": 1, "deselected": 7}


@pytest.mark.parametrize("strict", [False, True], ids=["", "strictly"])
def test_an_entry_that_is_not_needed_is_named(known: SimulatedProject, *, strict: bool) -> None:
    known.expect(topologies=["dp"])
    result = known.run(*DP, *(["--pdserve-strict"] if strict else []))
    result.assert_outcomes(passed=1)
    assert result.ret == strict
    said = f"{known.expected}: {ENTRY} covered nothing tonight; remove it"
    assert said in result.outlines


def test_an_entry_of_cells_that_did_not_run_is_no_trouble(known: SimulatedProject) -> None:
    known.expect(topologies=["1p3d"])
    result = known.run(*DP, "--pdserve-strict")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*expected.toml*")
