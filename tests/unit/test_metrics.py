"""Names, units and directions of metrics."""

from __future__ import annotations

import pytest

from pytest_pdserve.values.metrics import COUNTS
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import TIMES


@pytest.mark.parametrize(
    ("name", "unit", "better", "floor"),
    [
        ("mean_ttft_ms", "ms", "lower", 0.03),
        ("p99_ttft_ms", "ms", "lower", 0.10),
        ("p90_e2el_ms", "ms", "lower", 0.10),
        ("median_itl_ms", "ms", "lower", 0.01),
        ("output_throughput", "tok/s", "higher", 0.01),
        ("request_throughput", "req/s", "higher", 0.01),
        ("failed", "requests", "equal", 0.0),
        ("kv_bytes_per_request", "bytes", "equal", 0.0),
    ],
)
def test_a_metric_has_unit_direction_and_floor(
    name: str, unit: str, better: str, floor: float
) -> None:
    metric = METRICS[name]
    assert (metric.name, metric.unit, metric.better, metric.floor) == (name, unit, better, floor)


def test_what_goes_into_baselines_is_known_and_disjoint() -> None:
    assert set(TIMES) | set(COUNTS) <= set(METRICS)
    assert not set(TIMES) & set(COUNTS)
    assert {METRICS[name].better for name in COUNTS} == {"equal"}


def test_only_a_count_has_no_floor() -> None:
    assert {name for name, metric in METRICS.items() if metric.floor == 0} == set(COUNTS)
