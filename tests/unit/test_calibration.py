"""What runs between which nothing changed say of a system's noise: against noise that is known."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from pytest_pdserve.study.calibration import calibrate
from pytest_pdserve.study.calibration import noise_of
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.calibration import CalibrationRun
from pytest_pdserve.values.calibration import CellNoise
from pytest_pdserve.values.calibration import Series
from pytest_pdserve.values.system import Judgement
from pytest_pdserve.values.workload import Workload

ITL = "mean_itl_ms"


def draw(
    source: np.random.Generator,
    *,
    starts: int = 5,
    runs: int = 3,
    within: float = 0.02,
    between: float = 0.0,
    first: float = 0.0,
    prompts: int = 64,
    nights: int = 1,
    topology: str = "dp",
    metrics: tuple[str, ...] = (ITL,),
) -> list[CalibrationRun]:
    """Runs of one cell with normal logarithms.

    :param first: by how much the first run on each start is slower, logarithm.
    """
    drawn = []
    for start in range(starts):
        level = source.normal(0, between, len(metrics))
        for order in range(runs):
            logs = level + source.normal(0, within, len(metrics)) + (first if order == 0 else 0.0)
            drawn.append(
                CalibrationRun(
                    topology=topology,
                    workload=Workload(input_len=512, output_len=256, num_prompts=prompts),
                    prompts=prompts,
                    start=f"start {start}",
                    night=f"night {start % nights}",
                    order=order,
                    values={n: 10 * math.exp(x) for n, x in zip(metrics, logs, strict=True)},
                    load_s=prompts / 64,
                )
            )
    return drawn


def calibrated(*cells: list[CalibrationRun], judgement: Judgement | None = None) -> Calibration:
    runs = tuple(run for cell in cells for run in cell)
    return calibrate(Series(source="drawn", runs=runs), judgement or Judgement())


def noise(runs: list[CalibrationRun], metric: str = ITL) -> CellNoise:
    found = noise_of(metric, runs)
    assert found is not None
    return found


# Spreads.


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("between", [0.0, 0.01, 0.03], ids=lambda b: f"between {b:.0%}")
@pytest.mark.parametrize(("starts", "runs"), [(5, 3), (10, 3), (5, 9)])
def test_both_parts_of_the_spread_are_found(starts: int, runs: int, between: float) -> None:
    source = np.random.default_rng(7)
    found = [
        noise(draw(source, starts=starts, runs=runs, between=between, within=0.02))
        for _ in range(250)
    ]
    within = statistics.median(each.within.value for each in found if each.within)
    apart = statistics.median(each.between.value for each in found if each.between)
    night = statistics.median(each.night.value for each in found)
    assert within == pytest.approx(0.02, rel=0.06)
    assert apart == pytest.approx(between, abs=0.006)
    assert math.hypot(0.02, between) * 0.93 < night < math.hypot(0.02, between) * 1.16


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("between", [0.0, 0.02], ids=["starts alike", "starts differ"])
@pytest.mark.parametrize(("starts", "runs"), [(5, 3), (10, 3), (5, 9)])
def test_intervals_hold_the_true_spread_nine_times_in_ten(
    starts: int, runs: int, between: float
) -> None:
    source = np.random.default_rng(8)
    held: dict[str, list[bool]] = {"within": [], "between": [], "night": []}
    true = {"within": 0.02, "between": between, "night": math.hypot(0.02, between)}
    for _ in range(200):
        found = noise(draw(source, starts=starts, runs=runs, between=between))
        for part, value in true.items():
            spread = getattr(found, part)
            held[part].append(spread.low <= value <= spread.high)
    assert min(np.mean(part) for part in held.values()) >= 0.80
    assert float(np.mean(held["within"])) >= 0.88


def test_one_start_a_night_tells_the_spread_of_nights_and_not_its_parts() -> None:
    found = noise(draw(np.random.default_rng(2), starts=200, runs=1, between=0.03, within=0.04))
    assert found.night.value == pytest.approx(0.05, rel=0.2)
    assert (found.within, found.between) == (None, None)


def test_one_run_that_is_far_off_hardly_moves_the_spread() -> None:
    runs = draw(np.random.default_rng(2), starts=5, runs=6)
    spoiled = [replace(runs[0], values={ITL: 50.0}), *runs[1:]]
    assert noise(spoiled).night.value == pytest.approx(noise(runs).night.value, rel=0.15)


def test_values_that_are_rounded_until_most_are_equal_still_have_a_spread() -> None:
    runs = draw(np.random.default_rng(3), starts=10, runs=9, within=0.005, between=0.005)
    rounded = [replace(run, values={ITL: round(run.values[ITL], 1)}) for run in runs]
    found = noise(rounded)
    assert found.is_rounded
    assert found.night.value == pytest.approx(noise(runs).night.value, rel=0.35)


def test_equal_values_have_no_spread() -> None:
    found = noise(draw(np.random.default_rng(4), within=0.0))
    assert (found.night.value, found.night.high, found.limit) == (0.0, 0.0, 0.0)


# What follows.


def test_longer_loads_make_the_part_within_a_start_smaller() -> None:
    source = np.random.default_rng(5)
    cell = draw(source, starts=40, within=0.04, prompts=64)
    found = calibrated(cell, draw(source, starts=40, within=0.02, prompts=256))
    (ratio,) = found.ratios
    assert (ratio.short, ratio.long, ratio.expected) == (64, 256, 0.5)
    assert ratio.ratio == pytest.approx(0.5, rel=0.2)
    assert noise(cell).at(256) == pytest.approx(noise(cell).night.value / 2, rel=0.2)


def test_the_prompts_that_a_cell_needs_are_the_fewest_multiple_that_keeps_the_promise() -> None:
    runs = draw(np.random.default_rng(0), starts=200, within=0.04, between=0.01)
    (blind,) = calibrated(runs).insensitive
    assert blind.prompts is not None
    spread = math.log1p(blind.promise) / 5
    assert blind.noise.at(blind.prompts) <= spread < blind.noise.at(blind.prompts - 64)


def test_where_starts_differ_too_much_more_starts_are_told_and_no_prompts() -> None:
    runs = draw(np.random.default_rng(6), starts=200, within=0.002, between=0.025)
    (blind,) = calibrated(runs).insensitive
    assert (blind.prompts, blind.starts) == (None, 5)


def test_a_load_is_proposed_that_gains_most_of_what_longer_ones_gain() -> None:
    source = np.random.default_rng(9)
    cells = [draw(source, starts=40, within=0.028, topology=f"route{n}") for n in range(2, 10)]
    found = calibrated(*cells)
    kept = {each.prompts: each.kept for each in found.forecasts}
    loads = [64 * factor for factor in (2, 4, 8, 16)]
    enough = [load for load in loads if kept[load] - kept[None] >= 0.75 * (kept[1024] - kept[None])]
    assert kept[1024] > kept[None]
    assert found.prompts == enough[0]


def test_no_load_is_proposed_where_cells_see_what_is_promised() -> None:
    assert calibrated(draw(np.random.default_rng(9), starts=20, within=0.005)).prompts is None


@pytest.mark.parametrize(
    ("spread", "nights", "own", "floor"),
    [
        pytest.param(0.02, 1, None, 0.11, id="a noisy system gets a higher floor"),
        pytest.param(0.004, 1, None, 0.04, id="starts of one night lower no floor"),
        pytest.param(0.004, 5, None, 0.03, id="starts of five nights do"),
        pytest.param(0.004, 1, 0.01, 0.03, id="a floor that is too low is raised on one night"),
        pytest.param(0.0, 5, None, 0.01, id="no floor is below one percent"),
        pytest.param(1.0, 5, None, 10.0, id="no floor is larger than a system file takes"),
    ],
)
def test_the_floor_is_five_typical_spreads(
    spread: float, nights: int, own: float | None, floor: float
) -> None:
    source = np.random.default_rng(10)
    cells = [
        draw(source, starts=40, within=spread, nights=nights, topology=f"route{n}")
        for n in range(2, 7)
    ]
    judgement = Judgement(floors={} if own is None else {ITL: own})
    (found,) = calibrated(*cells, judgement=judgement).metrics
    assert found.floor == floor


METRICS = ("mean_ttft_ms", ITL, "mean_e2el_ms")


def test_a_first_run_that_is_slower_than_later_ones_is_told_and_left_out() -> None:
    (found,) = calibrated(draw(np.random.default_rng(11), first=0.2, metrics=METRICS)).first_runs
    assert set(found.changes) == set(METRICS)
    assert found.changes[ITL] == pytest.approx(0.2, rel=0.2)
    assert found.is_left_out


def test_first_runs_like_later_ones_are_told_of_one_cell_in_fifty_at_most() -> None:
    source = np.random.default_rng(12)
    told = sum(bool(calibrated(draw(source, metrics=METRICS)).first_runs) for _ in range(200))
    assert told <= 4
