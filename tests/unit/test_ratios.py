"""Ratios of paired runs: intervals, looks, and how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pytest_pdserve.judge.ratios import ERROR
from pytest_pdserve.judge.ratios import LEAST_SD
from pytest_pdserve.judge.ratios import PairSpread
from pytest_pdserve.judge.ratios import Region
from pytest_pdserve.judge.ratios import judge_point
from pytest_pdserve.judge.ratios import judge_ratios
from pytest_pdserve.judge.ratios import judge_sample
from pytest_pdserve.judge.verdict import Status

BELOW = Region(high=1.0, strict=True)
CLOSE = Region(low=0.9, high=1.1)


@pytest.mark.parametrize(
    ("region", "low", "high", "status"),
    [
        (BELOW, 0.5, 0.9, "PASS"),
        (BELOW, 0.5, 1.0, "INCONCLUSIVE"),
        (BELOW, 1.0, 1.0, "FAIL"),
        (BELOW, 1.0, 1.5, "FAIL"),
        (CLOSE, 0.9, 1.1, "PASS"),
        (CLOSE, 0.8, 0.95, "INCONCLUSIVE"),
        (CLOSE, 0.8, 0.89, "FAIL"),
        (CLOSE, 1.1, 1.2, "INCONCLUSIVE"),
        (CLOSE, 1.11, 1.2, "FAIL"),
        (CLOSE, 0.5, 1.5, "INCONCLUSIVE"),
        (Region(), 0.0, 9.0, "PASS"),
    ],
)
def test_an_interval_lies_inside_outside_or_across(
    region: Region, low: float, high: float, status: str
) -> None:
    assert judge_point((low + high) / 2, region, low=low, high=high).status == status


def test_an_interval_is_students() -> None:
    values = [-0.10, -0.12, -0.09, -0.08]
    found = judge_sample(values, Region(high=-0.1), least_sd=0.0)
    mean, sd = np.mean(values), np.std(values, ddof=1)
    # a quarter of the error, as looks are at 3, 4, 5 and 6 pairs
    assert found.pairs == 4
    reach = stats.t.isf(ERROR / 4, 3) * sd / 2
    assert (found.low, found.high) == pytest.approx((mean - reach, mean + reach))


@pytest.mark.parametrize("freedom", [math.inf, 19.0])
def test_a_spread_from_history_lets_one_pair_decide(freedom: float) -> None:
    spread = PairSpread(sd=0.01, freedom=freedom)
    found = judge_ratios([(9.0, 10.0)], BELOW, spread=spread)
    assert (found.status, found.pairs) == ("PASS", 1)
    quantile = (
        stats.t.isf(ERROR / 6, freedom) if math.isfinite(freedom) else stats.norm.isf(ERROR / 6)
    )
    assert found.high == pytest.approx(0.9 * math.exp(0.01 * quantile))
    assert judge_ratios([(9.8, 10.0)], BELOW, spread=spread).status == "INCONCLUSIVE"


def test_what_is_decided_is_not_looked_at_again() -> None:
    spread = PairSpread(sd=0.01)
    pairs = [(9.0, 10.0), (9.0, 10.0), (50.0, 10.0)]
    assert judge_ratios(pairs[:1], BELOW, spread=spread).pairs == 1
    assert judge_ratios(pairs, BELOW, spread=spread).pairs == 2


def test_six_pairs_are_all_that_is_looked_at() -> None:
    wavering = [(10.0, 10.0), (10.1, 10.0)] * 3
    many = judge_ratios([*wavering, *[(1.0, 10.0)] * 50], BELOW)
    assert (many.status, many.pairs) == ("INCONCLUSIVE", 6)


def test_two_pairs_without_a_known_spread_say_nothing() -> None:
    found = judge_ratios([(1.0, 10.0), (1.0, 10.0)], BELOW)
    assert (found.status, found.low, found.high) == ("INCONCLUSIVE", 0.0, math.inf)
    assert found.value == pytest.approx(0.1)


def test_runs_that_repeat_themselves_still_have_a_spread() -> None:
    found = judge_ratios([(9.0, 10.0)] * 3, BELOW)
    assert found.status == "PASS"
    assert found.high > 0.9 * math.exp(LEAST_SD)


def test_a_fail_pays_for_every_comparison() -> None:
    spread = PairSpread(sd=0.01)
    pairs = [(10.35, 10.0)] * 2
    assert judge_ratios(pairs, BELOW, spread=spread).status == "FAIL"
    assert judge_ratios(pairs, BELOW, spread=spread, tests=32).status == "INCONCLUSIVE"
    passing = [(9.65, 10.0)]
    assert judge_ratios(passing, BELOW, spread=spread, tests=32).status == "PASS"


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_no_pair_fails_a_claim_by_itself(odd: int) -> None:
    spread = PairSpread(sd=0.01)
    pairs = [(9.97, 10.0)] * 3
    pairs[odd] = (12.0, 10.0)
    assert judge_ratios([(12.0, 10.0)], BELOW, spread=spread).status == "INCONCLUSIVE"
    assert judge_ratios([(12.0, 10.0)] * 2, BELOW, spread=spread).status == "FAIL"
    assert judge_ratios(pairs, BELOW, spread=spread).status != "FAIL"
    assert judge_ratios([(8.0, 10.0), (10.03, 10.0)], BELOW, spread=spread).status != "PASS"


def test_no_pairs_are_an_error() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        judge_ratios([], BELOW)


@pytest.mark.parametrize("spread", [None, PairSpread(sd=0.02)], ids=["own", "known"])
@pytest.mark.parametrize("inside", [True, False])
def test_errors_stay_below_what_is_promised(spread: PairSpread | None, inside: bool) -> None:
    """At the limit itself, a claim passes or fails wrongly in 0.5 % of trials at most."""
    rng = np.random.default_rng(4)
    edge = Region(high=0.0, strict=True) if inside else Region(low=0.0, strict=True)
    trials = 1000
    found = [
        judge_sample(list(row), edge, least_sd=0.0, spread=spread).status
        for row in rng.normal(0.0, 0.02, (trials, 6))
    ]
    for wrong in (Status.PASS, Status.FAIL):
        assert found.count(wrong) / trials < ERROR + 3 * math.sqrt(ERROR / trials)


def test_a_clear_advantage_is_found() -> None:
    rng = np.random.default_rng(5)
    spread = PairSpread(sd=0.02 * math.sqrt(2))
    found = [
        judge_sample(list(row), Region(high=math.log(0.95)), least_sd=0.0, spread=spread)
        for row in rng.normal(math.log(0.88), 0.02 * math.sqrt(2), (200, 6))
    ]
    assert sum(outcome.status == "PASS" for outcome in found) > 190
