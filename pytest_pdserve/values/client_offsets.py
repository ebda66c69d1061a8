"""How far off a benchmark client was, held against a server that says what it sent."""

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
    """What a client reported too much at one number of streams."""

    streams: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Requests in flight at once, all sent at once."""
    off_ms: Mapping[Word, Milliseconds]
    """By metric, reported minus true, ms: negative where too little was reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOffsets:
    """What ``pdserve calibrate --client`` found; ``client.<kind>.json`` beside a baseline."""

    client: Word
    """Kind of the client, as in ``[bench] client``."""
    version: Line | None = None
    """Version of its program; None where it does not say one."""
    measured_on: Day
    """When."""
    machine: Mapping[Word, Line]
    """Hardware of the machine that it ran on."""
    rows: Annotated[tuple[OffsetAt, ...], Meta(min_length=1)]
    """By number of streams, fewest first."""

    def is_of(self, host: Mapping[str, str]) -> bool:
        """Whether nothing that is known of *host* differs from the machine that it ran on."""
        return all(host.get(name, value) == value for name, value in self.machine.items())

    def at(self, streams: int) -> Mapping[str, float]:
        """Return what the client reports too much with *streams* requests in flight, ms.

        A number between two that were measured takes the larger one; above the largest nothing is
        known, and the result is empty.
        """
        numbers = [row.streams for row in self.rows]
        place = bisect.bisect_left(numbers, streams)
        return self.rows[place].off_ms if place < len(numbers) else {}
