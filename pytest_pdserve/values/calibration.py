"""Calibration: how noisy a system is when nothing changes, as an A/A study has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.sources import Sources
from pytest_pdserve.values.text import Word

Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What an A/A study says of one metric; all on the log scale, over all its cells."""

    sd: Annotated[float, Meta(ge=0, le=100)]
    """Standard deviation of a run on a fresh start, from any night."""
    icc: Share
    """Share of the variance that runs of one night have in common (0 to 1)."""
    icc_low: Share
    """Lower end of its 90 % interval."""
    icc_high: Share
    """Upper end of it."""
    outliers: Share
    """Share of runs far from the others, which are left out of the rest."""
    start: Share | None
    """Share of the variance that belongs to the server's start: what further runs on the same
    servers do not show. None if no servers were measured twice."""
    warmup: Annotated[float, Meta(ge=-1, le=1_000_000)] | None
    """By which fraction the first run after a start is worse than later ones; None as above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One A/A study."""

    system: Word
    """System's name."""
    source: str
    """File it was read from, or will be written to."""
    provenance: Sources
    """Sessions, date, versions, fingerprint."""
    nights: Annotated[int, Meta(ge=2)]
    """Nights that were compared."""
    sessions: Annotated[int, Meta(ge=2)]
    """Fresh starts in them."""
    cells: Annotated[int, Meta(ge=1)]
    """Cells that were measured."""
    icc: Share
    """What the judge goes by: the median over metrics."""
    metrics: Annotated[Mapping[str, Noise], Meta(min_length=1)]
    """Noise of each metric."""
