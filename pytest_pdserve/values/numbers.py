"""Numbers that something may have been measured to be."""

from __future__ import annotations

from typing import Any

LARGEST = 1e18
"""No count, time or rate comes near; a record holds none above it."""


def finite(value: Any) -> float | None:
    """Return *value* as a float if it is a number of at most :data:`LARGEST`, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else None
