"""The nightly rule, point by point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.nightly import false_alarms
from pytest_pdserve.judge.nightly import is_better
from pytest_pdserve.judge.nightly import judge
from pytest_pdserve.judge.nightly import median_change
from pytest_pdserve.judge.verdict import Status

LIMIT = 0.06
REFERENCE = Reference(median=1.0, spread=0.01, nights=20, limit=LIMIT, fail_limit=LIMIT)
TOPOLOGY = Reference(median=0.0, spread=0.002, nights=20, limit=0.02, fail_limit=0.04)
"""Of a topology's median: it fails tonight only beyond the cells' floor."""


def seen(*changes: float, reference: Reference = REFERENCE) -> MetricNight:
    return MetricNight(reference=reference, changes=changes)


CLEAN, HALF, WORSE = seen(0.01), seen(0.05, 0.05, 0.05), seen(0.07, 0.08, 0.09)
"""Within two thirds of the limit; beyond two thirds in three runs; beyond the limit in three."""


@pytest.mark.parametrize(
    ("tonight", "wanted"),
    [
        pytest.param(seen(0.039), False, id="within two thirds of the limit"),
        pytest.param(seen(REFERENCE.suspicious_from), False, id="at two thirds"),
        pytest.param(seen(0.041), True, id="beyond two thirds"),
        pytest.param(seen(0.041, 0.2), True, id="twice beyond two thirds"),
        pytest.param(seen(0.2, 0.01), False, id="a run within two thirds ends it"),
        pytest.param(seen(0.2, 0.2, 0.2), False, id="three runs are all"),
        pytest.param(seen(-0.2), False, id="better"),
        pytest.param(seen(), False, id="no run has the metric"),
    ],
)
def test_a_cell_is_run_again_while_every_run_is_suspicious(
    tonight: MetricNight, wanted: bool
) -> None:
    assert tonight.wants_run is wanted


@pytest.mark.parametrize(
    ("tonight", "before", "status"),
    [
        pytest.param(CLEAN, None, Status.PASS, id="within the limit"),
        pytest.param(seen(0.3, 0.01), None, Status.PASS, id="the second run was fine"),
        pytest.param(seen(0.3, 0.3, 0.03), None, Status.PASS, id="the third run was fine"),
        pytest.param(seen(-0.3), None, Status.PASS, id="better"),
        pytest.param(HALF, None, Status.SUSPICIOUS, id="three runs, median within the limit"),
        pytest.param(WORSE, None, Status.FAIL, id="three runs, median beyond the limit"),
        pytest.param(seen(0.05, 0.059, 0.5), None, Status.SUSPICIOUS, id="it is the median"),
        pytest.param(seen(0.5), None, Status.SUSPICIOUS, id="one run proves nothing"),
        pytest.param(seen(0.5, 0.5), None, Status.SUSPICIOUS, id="nor do two"),
        pytest.param(HALF, HALF, Status.FAIL, id="suspicious last night too"),
        pytest.param(seen(0.5), seen(0.05), Status.FAIL, id="two nights of one run each"),
        pytest.param(HALF, CLEAN, Status.SUSPICIOUS, id="last night was fine"),
        pytest.param(CLEAN, WORSE, Status.PASS, id="gone since last night"),
    ],
)
def test_a_metric_is_judged_by_its_runs_and_the_last_night(
    tonight: MetricNight, before: MetricNight | None, status: Status
) -> None:
    assert judge(tonight, before, one_night_is_enough=True) is status


@pytest.mark.parametrize(
    ("before", "status"),
    [
        pytest.param(None, Status.SUSPICIOUS, id="no night before"),
        pytest.param(CLEAN, Status.SUSPICIOUS, id="fine last night"),
        pytest.param(HALF, Status.FAIL, id="suspicious last night"),
    ],
)
def test_where_alarms_went_away_before_a_fail_takes_two_nights(
    before: MetricNight | None, status: Status
) -> None:
    assert judge(WORSE, before, one_night_is_enough=False) is status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param((0.013, 0.013, 0.013), Status.PASS, id="within two thirds"),
        pytest.param((0.03, 0.03, 0.03), Status.SUSPICIOUS, id="beyond its own limit only"),
        pytest.param((0.041, 0.041, 0.041), Status.FAIL, id="beyond the floor of cells too"),
    ],
)
def test_a_topology_fails_tonight_only_beyond_the_floor_of_its_cells(
    changes: tuple[float, ...], status: Status
) -> None:
    assert judge(seen(*changes, reference=TOPOLOGY), None, one_night_is_enough=True) is status


A, B = "a", "b"


@pytest.mark.parametrize(
    ("nights", "count"),
    [
        pytest.param([{A: WORSE}], 0, id="what comes next is not known yet"),
        pytest.param([{A: WORSE}, {A: CLEAN}], 1, id="gone the next night"),
        pytest.param([{A: WORSE}, {A: HALF}], 0, id="still suspicious"),
        pytest.param([{A: WORSE}, {B: CLEAN}, {A: CLEAN}], 1, id="its next night counts"),
        pytest.param([{A: WORSE, B: WORSE}, {A: CLEAN, B: CLEAN}], 1, id="nights are counted"),
        pytest.param([{A: WORSE, B: WORSE}, {A: HALF, B: CLEAN}], 1, id="one of two is gone"),
        pytest.param([{A: HALF}, {A: CLEAN}], 0, id="a suspicion is no alarm"),
        pytest.param([{A: seen(0.5)}, {A: CLEAN}], 0, id="one run is no alarm"),
        pytest.param(
            [{A: WORSE}, {A: CLEAN}, {A: WORSE}, {A: CLEAN}], 2, id="twice within the nights"
        ),
    ],
)
def test_nights_whose_alarms_were_gone_the_next_night_are_counted(
    nights: list[dict[str, MetricNight]], count: int
) -> None:
    assert false_alarms(nights) == count


@pytest.mark.parametrize(
    ("first_runs", "better"),
    [
        pytest.param((-0.07, -0.07, -0.07), True, id="three nights beyond the limit"),
        pytest.param((-0.07, 0.0, -0.07), True, id="their median counts"),
        pytest.param((-0.07, 0.0, 0.0), False, id="tonight only"),
        pytest.param((-0.07, -0.07), False, id="two nights are too few"),
        pytest.param((-0.05, -0.05, -0.05), False, id="within the limit"),
        pytest.param((0.07, 0.07, 0.07), False, id="worse"),
        pytest.param((-0.07, -0.07, 0.0, -0.9), True, id="older nights do not count"),
    ],
)
def test_better_is_told_by_the_median_of_three_nights(
    first_runs: Sequence[float], better: bool
) -> None:
    assert is_better([seen(change) for change in first_runs]) is better


def test_a_topologys_change_is_the_median_of_its_cells() -> None:
    assert median_change({A: 0.0, B: 0.1, "c": 0.03}) == 0.03
    assert median_change({A: 0.1}) is None
    assert median_change({}) is None


def test_a_change_is_the_median_of_its_runs() -> None:
    assert seen(0.1, 0.3, 0.2).change == 0.2
    assert math.isclose(seen(0.1, 0.3).change, 0.2)


def test_a_night_that_joined_the_baseline_is_not_suspicious_when_limits_narrow() -> None:
    before = MetricNight(reference=REFERENCE, changes=(0.05,), passed=True)
    assert judge(HALF, before, one_night_is_enough=True) is Status.SUSPICIOUS
