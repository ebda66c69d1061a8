"""Expected changes: what is known to be worse, until when, and who answers for it."""

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
    """One entry of ``baselines/<system>/expected.toml``."""

    until: Day
    """Last day on which it covers anything."""
    owner: Word
    """Who answers for it."""
    reason: Word
    """Why it is expected, e.g. the number of an issue."""
    topologies: Words | None = None
    """Topologies that are slower; None covers every topology. Not of claims."""
    claims: Words | None = None
    """Ids of claims that do not hold; None is an entry about metrics."""
    cells: Words | None = None
    """Cells, by workload id, or by lengths such as ``512-256``; None covers every cell, and the
    topology as a whole."""
    metrics: Words | None = None
    """Metrics that are worse; None covers every metric. Not of claims."""
    max_worse: Annotated[float, Meta(gt=0, le=10)] | None = None
    """Largest change that is covered, as a fraction: 0.10 is 10 % worse. Not of claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFile:
    """A file of expected changes."""

    expected: tuple[ExpectedChange, ...] = ()
    """The entries."""
