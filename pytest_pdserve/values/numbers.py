"""Limits and conversions of measured numbers."""

from __future__ import annotations

import math
from typing import Any

LARGEST = 1e18
"""Largest number in stored files, far above any real count, time or rate."""
LARGEST_LOG = 700.0
"""Slightly less than the natural logarithm of the largest float."""


def growth(log: float) -> float:
    """Return exp(log) - 1: a change as a fraction, at most about 1e304."""
    return math.expm1(min(log, LARGEST_LOG))


def finite(value: Any) -> float | None:
    """Return *value* as a float if it is a number up to :data:`LARGEST`, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else None
