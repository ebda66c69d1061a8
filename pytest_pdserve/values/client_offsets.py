"""Errors of a benchmark client, measured against a server that reports what it sent."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.text import Day
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Word

Milliseconds = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetAt:
    """Offset of a client's metrics at one number of streams."""

    streams: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Requests in flight at once, all sent at once."""
    off_ms: Mapping[Word, Milliseconds]
    """Reported minus true value by metric, ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOffsets:
    """Result of ``pdserve calibrate --client``; ``client.<kind>.json`` in the baseline's folder."""

    client: Word
    """Kind of the client, as in ``[bench] client``."""
    version: Line | None = None
    """Version of its program; None if not known."""
    measured_on: Day
    """Day of the measurement."""
    machine: Mapping[Word, Line]
    """Hardware of the machine that it ran on."""
    rows: Annotated[tuple[OffsetAt, ...], Meta(min_length=1)]
    """Offsets by number of streams, in ascending order."""

    def is_of(self, host: Mapping[str, str]) -> bool:
        """Return whether *host* does not differ from the machine of the measurement."""
        return all(host.get(name, value) == value for name, value in self.machine.items())

    def at(self, streams: int) -> Mapping[str, float]:
        """Return the offset by metric with *streams* requests in flight, ms.

        For a number between two measured ones, the larger is used; above the largest, the result is
        empty.
        """
        numbers = [row.streams for row in self.rows]
        position = bisect.bisect_left(numbers, streams)
        return self.rows[position].off_ms if position < len(numbers) else {}
