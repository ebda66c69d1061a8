"""Envelope arithmetic."""

from __future__ import annotations

import math
import re

import pytest

from pytest_pdserve.judge.stats import envelope_from_runs
from pytest_pdserve.judge.stats import location
from pytest_pdserve.judge.stats import ratio


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ([100.0], "lower", 100.0),
        ([50.0, 200.0], "lower", 100.0),
        ([1.0, 10.0, 100.0], "higher", 10.0),
        ([0.0, 0.0], "equal", 0.0),
        ([16.0], "equal", 16.0),
    ],
)
def test_runs_have_one_number(values: list[float], better: str, expected: float) -> None:
    assert location(values, better) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "better", "message"),
    [
        ([], "lower", "no runs"),
        ([3.0, 0.0], "lower", "a timing or rate must be positive and finite: [0.0, 3.0]"),
        ([-1.0], "higher", "a timing or rate must be positive and finite: [-1.0]"),
        ([math.inf], "higher", "a timing or rate must be positive and finite: [inf]"),
        ([math.nan], "lower", "a timing or rate must be positive and finite: [nan]"),
        ([16.0, 15.0], "equal", "counts differ between runs: [15.0, 16.0]"),
    ],
)
def test_runs_without_one_number_say_why(values: list[float], better: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        location(values, better)


def test_the_room_of_an_envelope_is_the_floor_and_a_count_has_none() -> None:
    timing = envelope_from_runs("mean_ttft_ms", [50.0, 200.0], 0.2)
    assert timing.ref == pytest.approx(100.0)
    assert (timing.rtol, timing.better, timing.runs) == (0.2, "lower", 2)
    count = envelope_from_runs("failed", [0.0], 0.2)
    assert (count.ref, count.rtol, count.better) == (0.0, 0.0, "equal")


def test_a_ratio_needs_something_to_relate_to() -> None:
    assert ratio(30.0, 20.0) == 1.5
    for other in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="no ratio to"):
            ratio(1.0, other)
