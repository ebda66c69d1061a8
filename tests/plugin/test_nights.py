"""Nights on stub engines that are really started anew: logs, records, restarts that fail."""

from __future__ import annotations

import re

import pytest

from tests.support.drawn import around
from tests.support.drawn import write_nights
from tests.support.house import WORKLOAD
from tests.support.house import House

ITL = r"mean_itl_ms \d+\.\d+ ms, reference 20\.5 ms \(20 nights\): \+\d+(\.\d)? %, limit \+30 %"
SPAN = r"\(\+\d+(\.\d)? to \+\d+(\.\d)? %\)"


@pytest.fixture
def nightly(house: House) -> House:
    """Stub engines of 34 ms a token where 20 nights had 20.5; only ITL is judged by that."""
    house.suites("sweep")
    house.system(judgement_floors={"mean_itl_ms": 0.3})
    house.faults(every={"token_ms": 34})
    values = {"mean_itl_ms": around(20.5, spread=0.01, seed="itl")}
    versions = {"vllm": "0.15.1"}
    write_nights(house.baseline, {("1p1d", WORKLOAD): values}, versions=versions)
    return house


@pytest.mark.slow
def test_a_new_cell_is_measured_on_three_fresh_starts_that_take_other_nodes(house: House) -> None:
    house.suites("sweep")
    house.system(cluster={"shared_host": False})
    result = house.run("--topology", "1p1d", "--pdserve-first-runs", "3")
    result.assert_outcomes(passed=1, skipped=1)
    records = house.records()
    assert [(record["repeat"], record["start"]) for record in records] == [(0, 0), (1, 1), (2, 2)]
    decode = [
        next(each["node"] for each in record["processes"] if each["name"] == "decode[0]")
        for record in records
    ]
    assert len(set(decode)) == 3
    (night,) = house.cells()["1p1d"][WORKLOAD]["nights"]
    assert night["starts"] == 3
    result.stdout.fnmatch_lines(
        [f"NEW: 1 cell, recorded as reference in {house.baseline}"], consecutive=True
    )


def test_a_slow_cell_is_run_again_on_fresh_starts_and_fails(nightly: House) -> None:
    result = nightly.run("--topology", "1p1d", "-k", "32-8")
    result.assert_outcomes(failed=1)
    said = (
        rf"{ITL}\. Confirmed by 3 starts {SPAN}\. First seen tonight; "
        r"vLLM 0\.15\.1 -> \S+.* since the baseline\."
    )
    result.stdout.re_match_lines([rf"FAIL: 1p1d {WORKLOAD}: {said}$"])
    records = nightly.records()
    assert [record["start"] for record in records] == [0, 1, 2]
    folder = nightly.runs / records[0]["session"]["id"] / "1p1d"
    assert {"logs", "logs-2", "logs-3"} <= {path.name for path in folder.iterdir()}
    logs = [{each["log"].split("/")[1] for each in r["processes"][:2]} for r in records]
    assert logs == [{"logs"}, {"logs-2"}, {"logs-3"}]


@pytest.mark.slow
def test_a_cell_that_was_slow_once_passes_with_two_runs(nightly: House) -> None:
    nightly.from_start(2, token_ms=5)
    result = nightly.run("--topology", "1p1d", "-k", "32-8")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f" 1p1d *{WORKLOAD} *PASS", "judged: 1 cell in 2 runs, 1 of *"])
    assert [record["start"] for record in nightly.records()] == [0, 1]


def test_a_restart_that_fails_is_an_error_and_the_suspicion_is_told(nightly: House) -> None:
    nightly.from_start(2, exit_at_start=7)
    result = nightly.run("--topology", "1p1d", "-k", "32-8")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["decode[[]0] on local1 exited with code 7 *"])
    said = (
        rf"{ITL}\. Seen in 1 start; it takes 3 to confirm: it could not run again, since the "
        r"topology ended in an ERROR\. The next night settles it: FAIL if it is suspicious too\."
    )
    result.stdout.re_match_lines([rf"SUSPICIOUS: 1p1d {WORKLOAD}: {said}$"])
    assert [record["repeat"] for record in nightly.records()] == [0]
    assert nightly.survivors() == []


@pytest.mark.slow
def test_a_second_run_that_is_invalid_is_an_error_with_both_records(nightly: House) -> None:
    nightly.from_start(2, token_ms=34, foreign=1)
    result = nightly.run("--topology", "1p1d", "-k", "32-8")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*foreign_requests: decode instances counted 16 requests, 8 were sent: *"]
    )
    result.stdout.fnmatch_lines([f" 1p1d *{WORKLOAD} *ERROR"])
    assert [record["repeat"] for record in nightly.records()] == [0, 1]


def test_a_cell_is_measured_once_however_many_tests_ask_for_it(nightly: House) -> None:
    nightly.faults(every={"token_ms": 5})
    (nightly.path / "suites" / "sweep" / "test_again.py").write_text(
        "import pytest\n\n"
        '@pytest.mark.pdserve_panels("prefill")\n'
        "def test_again(pdserve_run, pdserve_judge):\n"
        "    pdserve_judge(pdserve_run)\n"
    )
    result = nightly.run("--topology", "1p1d", "-k", "32-8")
    result.assert_outcomes(passed=2)
    assert len(nightly.records()) == 1


@pytest.mark.slow
def test_who_held_the_servers_before_a_restart_asks_the_new_ones(nightly: House) -> None:
    nightly.from_start(2, token_ms=5)
    (nightly.path / "suites" / "sweep" / "test_sweep.py").write_text(
        "import pytest\n\n"
        '@pytest.mark.pdserve_panels("prefill")\n'
        "def test_ask(pdserve_deployment, pdserve_run, pdserve_judge):\n"
        "    asked = pdserve_deployment.client.get(pdserve_deployment.url + '/health')\n"
        "    assert asked.is_success\n"
        "    pdserve_deployment.check_alive()\n"
        "    pdserve_judge(pdserve_run)\n"
    )
    result = nightly.run("--topology", "1p1d")
    result.assert_outcomes(passed=1)
    assert len(nightly.records()) == 2
    starts = [line for line in result.outlines if re.search(": starting ", line)]
    assert len(starts) == 2
