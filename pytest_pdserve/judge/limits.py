"""Limits: how much worse than its reference a metric must be before it can FAIL. Pure.

All arithmetic is on logarithms, signed so that positive is worse: twice the latency and half the
throughput are the same distance from their reference.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.metrics import Better
from pytest_pdserve.values.numbers import LARGEST_LOG
from pytest_pdserve.values.numbers import growth
from pytest_pdserve.values.rules import RULE

NORMAL_MAD = 1.4826
"""Standard deviation of normal values, in median distances from their median."""


def signed_log(value: float, better: Better) -> float:
    """Return the logarithm of *value*, signed so that larger is worse.

    :raises ValueError: if it is not positive and finite.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"value = {value:g}, expected a latency or throughput above 0 and finite")
    return -math.log(value) if better == "higher" else math.log(value)


def as_value(log: float, better: Better) -> float:
    """Return the value of a signed logarithm."""
    return math.exp(min(-log if better == "higher" else log, LARGEST_LOG))


def as_change(log: float, better: Better) -> float:
    """Return the change of a value that corresponds to a signed logarithm, as a fraction.

    0.05 is 5 % more, which is worse for a latency and better for a throughput.
    """
    return growth(-log if better == "higher" else log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The expected value of a metric and its limits, from stored nights, as signed logarithms."""

    median: float
    """Median of the nights."""
    spread: float
    """Standard deviation of the nights, estimated by their median distance from the median."""
    nights: int
    """Number of nights."""
    limit: float
    """Distance from the median beyond which a value is worse."""
    fail_limit: float
    """Distance beyond which a value can FAIL on the first night: the limit, or more for a
    topology."""

    @property
    def is_provisional(self) -> bool:
        """True if the reference has too few nights for the normal limit."""
        return self.nights < RULE.full_nights

    @property
    def suspicious_from(self) -> float:
        """Distance beyond which a run is suspicious."""
        return RULE.suspicious_share * self.limit


def reference_of(
    logs: Sequence[float],
    floor: float,
    *,
    starts: int,
    fail_floor: float = 0.0,
) -> Reference:
    """Return the reference that stored nights give.

    :param logs: signed logarithm of each night, at least one.
    :param floor: smallest limit, as a fraction.
    :param starts: number of fresh starts whose median is the first night's value.
    :param fail_floor: smallest distance that can FAIL on the first night, as a fraction.
    """
    median = statistics.median(logs)
    spread = NORMAL_MAD * statistics.median([abs(log - median) for log in logs])
    floors = 1.0
    if len(logs) < RULE.single_start_nights and starts < RULE.first_starts:
        floors = RULE.single_start_floors
    elif len(logs) < RULE.full_nights:
        floors = RULE.young_floors
    limit = max(RULE.spreads * spread, math.log1p(floors * floor))
    return Reference(
        median=median,
        spread=spread,
        nights=len(logs),
        limit=limit,
        fail_limit=max(limit, math.log1p(fail_floor)),
    )
