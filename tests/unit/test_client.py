"""How much of a core the benchmark client used while it measured."""

from __future__ import annotations

import pytest

from pytest_pdserve.serving.client import cores_used

STARTING = [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]
"""Imports take a whole core, which says nothing of the measurement."""


@pytest.mark.parametrize(
    ("used", "duration_s", "share"),
    [
        ([*STARTING, (3.0, 2.5), (4.0, 3.0)], 2.0, 0.5),
        ([*STARTING, (3.0, 2.5), (4.0, 3.0)], 1.5, 0.5),
        ([*STARTING, (4.0, 3.8)], 2.0, 0.9),
        ([(0.0, 0.0), (1.0, 0.5)], 10.0, 0.5),
        ([(0.0, 0.0)], 1.0, None),
        ([], 1.0, None),
        ([(0.0, 0.0), (2.0, 1.0)], 0.0, None),
        ([(0.0, 0.0), (0.2, 0.2)], 1.0, None),
    ],
    ids=[
        *("the last two seconds", "between samples", "busy", "shorter life than run"),
        *("one sample", "none", "no duration", "too close together"),
    ],
)
def test_the_share_is_taken_over_the_measurement_alone(
    used: list[tuple[float, float]], duration_s: float, share: float | None
) -> None:
    assert cores_used(used, duration_s) == (share if share is None else pytest.approx(share))
