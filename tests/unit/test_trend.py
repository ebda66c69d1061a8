"""Steps and drifts in the nights of one metric of one cell. Simulated, with fixed seeds."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from pytest_pdserve.study.trend import Change
from pytest_pdserve.study.trend import SeriesAnalysis
from pytest_pdserve.study.trend import analyze_series
from pytest_pdserve.study.trend import correlation_of
from pytest_pdserve.values.errors import ConfigError

pytest.importorskip("ruptures", reason="the extra [history] is not installed")

Floats = npt.NDArray[np.float64]
SERIES = 20
"""Series of each kind of noise; benchmarks/history/trends.py has a thousand."""


def noise(seed: int, nights: int = 365) -> Floats:
    """Normal noise of 1 %."""
    return np.random.default_rng(seed).normal(scale=0.01, size=nights)


def step(nights: int, at: int, change: float) -> Floats:
    return np.where(np.arange(nights) >= at, math.log1p(change), 0.0)


def drift(nights: int, first: int, last: int, change: float) -> Floats:
    return math.log1p(change) * np.clip((np.arange(nights) - first) / (last - first), 0, 1)


def kinds(analysis: SeriesAnalysis) -> list[str]:
    return [change.kind for change in analysis.changes]


def sizes(changes: tuple[Change, ...]) -> list[float]:
    return [math.expm1(change.after - change.before) for change in changes]


@pytest.mark.parametrize("at", [10, 100, 355], ids=["early", "in the middle", "late"])
def test_a_step_of_4_percent_is_dated_within_three_nights(at: int) -> None:
    for seed in range(SERIES):
        analysis = analyze_series(noise(seed) + step(365, at, 0.04))
        assert kinds(analysis) == ["step"]
        assert abs(analysis.changes[0].first - at) <= 3
        assert analysis.changes[0].last == analysis.changes[0].first
        assert sizes(analysis.changes) == [pytest.approx(0.04, abs=0.02)]


@pytest.mark.parametrize("first", [20, 200, 334], ids=["early", "in the middle", "going on"])
def test_a_drift_of_6_percent_over_30_nights_is_found_and_its_start_dated(first: int) -> None:
    for seed in range(SERIES):
        analysis = analyze_series(noise(seed) + drift(365, first, first + 30, 0.06))
        assert kinds(analysis) == ["drift"]
        assert abs(analysis.changes[0].first - first) <= 10
        assert abs(analysis.changes[0].last - first - 30) <= 10
        assert sizes(analysis.changes) == [pytest.approx(0.06, abs=0.02)]


@pytest.mark.parametrize(
    ("last", "kind"),
    [(101, "step"), (103, "step"), (120, "drift"), (150, "drift")],
    ids=["one night", "three nights", "twenty nights", "fifty nights"],
)
def test_a_fast_change_is_a_step_and_a_slow_one_a_drift(last: int, kind: str) -> None:
    analysis = analyze_series(noise(1) + drift(365, 100, last, 0.08))
    assert kinds(analysis) == [kind]


def test_a_drift_that_goes_on_reaches_the_newest_night() -> None:
    analysis = analyze_series(noise(2, 100) + drift(100, 70, 110, 0.1))
    assert kinds(analysis) == ["drift"]
    assert analysis.changes[0].last >= 92


def test_several_changes_of_one_series_are_all_found() -> None:
    planted = step(365, 60, 0.05) + step(365, 120, -0.04) + drift(365, 220, 260, 0.07)
    analysis = analyze_series(noise(3) + planted)
    assert kinds(analysis) == ["step", "step", "drift"]
    assert [change.first for change in analysis.changes] == pytest.approx([60, 120, 220], abs=10)
    assert sizes(analysis.changes) == [pytest.approx(x, abs=0.015) for x in (0.05, -0.04, 0.07)]


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng, n: rng.normal(size=n), id="normal"),
        pytest.param(lambda rng, n: rng.standard_t(3, size=n), id="heavy tails"),
        pytest.param(lambda rng, n: np.round(rng.normal(size=n)), id="rounded"),
        pytest.param(lambda rng, n: np.zeros(n), id="no noise"),
    ],
)
@pytest.mark.parametrize("nights", [20, 60, 365])
def test_nothing_is_found_in_noise_alone(
    draw: Callable[[np.random.Generator, int], Floats], nights: int
) -> None:
    rng = np.random.default_rng(4)
    for _ in range(SERIES):
        assert analyze_series(0.01 * draw(rng, nights)).changes == ()


def test_nights_that_resemble_the_one_before_are_no_change() -> None:
    for seed in range(SERIES):
        made = noise(seed)
        for night in range(1, len(made)):
            made[night] += 0.5 * made[night - 1]
        assert correlation_of(made) == pytest.approx(0.45, abs=0.2)
        assert analyze_series(made).changes == ()


def test_a_correlation_that_is_given_is_used() -> None:
    made = noise(5) + step(365, 355, 0.03)
    assert kinds(analyze_series(made, correlation=0.0)) == ["step"]
    assert kinds(analyze_series(made, correlation=0.8)) == []


@pytest.mark.parametrize(("change", "found"), [(0.0005, []), (0.01, ["step"])])
def test_a_series_without_noise_has_no_steps_that_are_far_too_small_to_matter(
    change: float, found: list[str]
) -> None:
    assert kinds(analyze_series(step(100, 50, change))) == found


@pytest.mark.parametrize("lasts", [1, 2], ids=["one night", "two nights"])
def test_a_broken_night_is_named_and_changes_nothing(lasts: int) -> None:
    made = noise(6)
    made[100 : 100 + lasts] += 0.3
    analysis = analyze_series(made)
    assert analysis.changes == ()
    assert analysis.broken == tuple(range(100, 100 + lasts))


@pytest.mark.parametrize("place", [0, 364], ids=["first", "last"])
def test_a_far_night_at_an_end_may_be_a_new_level_and_is_not_called_broken(place: int) -> None:
    made = noise(7)
    made[place] += 0.3
    assert analyze_series(made).broken == ()


def test_the_levels_are_those_of_least_squares() -> None:
    """Held against a general solver, for the nights that were found."""
    rng = np.random.default_rng(8)
    made = 0.01 * rng.uniform(-1, 1, size=120) + step(120, 40, 0.05) + drift(120, 70, 95, -0.08)
    jump, slope = analyze_series(made).changes
    nights = np.arange(120)
    line = np.clip((nights - slope.first) / (slope.last - slope.first), 0, 1)
    columns = np.stack([nights < jump.first, nights >= jump.first, line], axis=1).astype(float)
    before, after, change = np.linalg.lstsq(columns, made)[0]
    assert (jump.before, jump.after) == pytest.approx((before, after))
    assert (slope.before, slope.after) == pytest.approx((after, after + change))


def test_a_change_is_as_strong_as_its_size_in_standard_deviations_of_a_night() -> None:
    analysis = analyze_series(noise(9) + step(365, 150, 0.04))
    assert analysis.noise == pytest.approx(0.01, rel=0.25)
    (found,) = analysis.changes
    assert found.strength == pytest.approx(abs(found.after - found.before) / analysis.noise)


def test_too_few_nights_are_refused() -> None:
    with pytest.raises(ValueError, match="9 nights, expected at least 10"):
        analyze_series(noise(1, 9))


def test_without_ruptures_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruptures", None)
    with pytest.raises(ConfigError, match=r"needs ruptures; install pytest-pdserve\[history\]"):
        analyze_series(noise(1))
