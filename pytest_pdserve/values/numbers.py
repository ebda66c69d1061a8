"""Numbers that something may have been measured to be."""

from __future__ import annotations

import math
from typing import Any

LARGEST = 1e18
"""No count, time or rate comes near; a record holds none above it."""


LARGEST_LOG = 700.0
"""A little below the logarithm of the largest float."""


def growth(log: float) -> float:
    """Return the change that a logarithm stands for, as a fraction; endless growth is 1e304."""
    return math.expm1(min(log, LARGEST_LOG))


def finite(value: Any) -> float | None:
    """Return *value* as a float if it is a number of at most :data:`LARGEST`, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else None
