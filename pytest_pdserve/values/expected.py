"""Expected changes: metrics or claims that are known to be worse until a date, with an owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.text import Day
from pytest_pdserve.values.text import Word

_Unique = Meta(min_length=1, extra_json_schema={"uniqueItems": True})
Words = Annotated[tuple[Word, ...], _Unique]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedChange:
    """An entry of ``baselines/<system>/expected.toml``."""

    until: Day
    """Last day on which it is valid."""
    owner: Word
    """Person who is responsible."""
    reason: Word
    """Why it is expected, e.g. the number of an issue."""
    topologies: Words | None = None
    """Topologies that are slower; None for all. Not used for claims."""
    claims: Words | None = None
    """Ids of violated claims; None for an entry about metrics."""
    cells: Words | None = None
    """Cells, by workload id or by lengths such as ``512-256``; None for all, and the topology as a
    whole."""
    metrics: Words | None = None
    """Metrics that are worse; None for all. Not used for claims."""
    max_worse: Annotated[float, Meta(gt=0, le=10)] | None = None
    """Largest covered change, as a fraction: 0.10 is 10 % worse. Not used for claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFile:
    """A file of expected changes."""

    expected: tuple[ExpectedChange, ...] = ()
    """Entries of the file."""
