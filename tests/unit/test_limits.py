"""Limits: median, spread and floor of a baseline's nights."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.limits import reference_of
from pytest_pdserve.judge.limits import signed_log

LEVEL = math.log(10.0)


def nights(count: int, spread: float = 0.0) -> list[float]:
    """Nights around one level whose median distance from it is *spread*."""
    return [LEVEL + spread * (-1) ** n for n in range(count)]


@pytest.mark.parametrize(
    ("count", "starts", "floors"),
    [
        pytest.param(1, 3, 2, id="night 0 on three starts"),
        pytest.param(1, 1, 4, id="night 0 on one start"),
        pytest.param(2, 2, 4, id="two starts are too few"),
        pytest.param(2, 1, 4, id="two nights, the first on one start"),
        pytest.param(3, 1, 2, id="from three nights on the number of starts does not matter"),
        pytest.param(14, 3, 2, id="a young baseline"),
        pytest.param(15, 3, 1, id="a full baseline"),
        pytest.param(20, 1, 1, id="all nights that join by themselves"),
    ],
)
def test_quiet_nights_have_a_limit_of_some_floors(count: int, starts: int, floors: int) -> None:
    found = reference_of(nights(count), 0.04, starts=starts)
    assert found.limit == pytest.approx(math.log1p(floors * 0.04))
    assert found.nights == count
    assert found.is_provisional is (count < 15)


def test_a_noisy_cell_has_a_limit_of_five_spreads() -> None:
    found = reference_of(nights(20, 0.03), 0.04, starts=3)
    assert found.spread == pytest.approx(1.4826 * 0.03)
    assert found.limit == pytest.approx(5 * 1.4826 * 0.03)
    assert found.suspicious_from == pytest.approx(found.limit * 2 / 3)


def test_the_spread_is_the_standard_deviation_of_normal_nights() -> None:
    drawn = np.random.default_rng(3).normal(LEVEL, 0.01, 20_001)
    assert reference_of(list(drawn), 0.04, starts=3).spread == pytest.approx(0.01, rel=0.03)


def test_one_slowed_night_moves_neither_median_nor_limit() -> None:
    clean = nights(19, 0.001)
    slowed = [*clean, LEVEL + math.log(1.5)]
    before, after = (reference_of(each, 0.04, starts=3) for each in (clean, slowed))
    assert after.median == pytest.approx(before.median, abs=0.002)
    assert after.limit == before.limit


def test_the_median_of_an_even_number_of_nights_lies_between_the_two_in_the_middle() -> None:
    assert reference_of([1.0, 2.0, 3.0, 10.0], 0.04, starts=3).median == 2.5


def test_what_can_fail_on_the_first_night_is_at_least_the_floor_for_that() -> None:
    narrow = reference_of(nights(20), 0.02, starts=3, fail_floor=0.04)
    assert narrow.limit == pytest.approx(math.log1p(0.02))
    assert narrow.fail_limit == pytest.approx(math.log1p(0.04))
    wide = reference_of(nights(20, 0.05), 0.02, starts=3, fail_floor=0.04)
    assert wide.fail_limit == wide.limit


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_what_is_no_measurement_has_no_logarithm(value: float) -> None:
    with pytest.raises(ValueError, match="expected a latency or throughput above 0 and finite"):
        signed_log(value, "lower")


def test_twice_the_latency_and_half_the_throughput_are_equally_worse() -> None:
    latency = signed_log(20.0, "lower") - signed_log(10.0, "lower")
    throughput = signed_log(50.0, "higher") - signed_log(100.0, "higher")
    assert latency == pytest.approx(throughput) == pytest.approx(math.log(2))
    assert as_change(latency, "lower") == pytest.approx(1.0)
    assert as_change(throughput, "higher") == pytest.approx(-0.5)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_signed_logarithm_gives_its_value_back(better: str) -> None:
    assert as_value(signed_log(12.5, better), better) == pytest.approx(12.5)  # type: ignore[arg-type]


def test_the_median_of_nights_is_pythons_own() -> None:
    drawn = list(np.random.default_rng(5).normal(LEVEL, 0.02, 17))
    assert reference_of(drawn, 0.04, starts=3).median == statistics.median(drawn)
