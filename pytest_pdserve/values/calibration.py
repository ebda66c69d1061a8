"""Calibration: how noisy a system is when nothing changes, as an A/A study has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from typing import Any
from typing import Self

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What an A/A study says of one metric; all on the log scale, over all its cells."""

    sd: float
    """Standard deviation of a run on a fresh start, from any night."""
    icc: float
    """Share of the variance that runs of one night have in common (0 to 1)."""
    icc_low: float
    """Lower end of its 90 % interval."""
    icc_high: float
    """Upper end of it."""
    outliers: float
    """Share of runs far from the others, which are left out of the rest."""
    start: float | None
    """Share of the variance that belongs to the server's start: what further runs on the same
    servers do not show. None if no servers were measured twice."""
    warmup: float | None
    """By which fraction the first run after a start is worse than later ones; None as above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One A/A study."""

    system: str
    """System's name."""
    source: str
    """File it was read from, or will be written to."""
    provenance: Mapping[str, Any]
    """Run ids, date, versions, fingerprint."""
    nights: int
    """Nights that were compared."""
    sessions: int
    """Fresh starts in them."""
    cells: int
    """Cells that were measured."""
    icc: float
    """What the judge goes by: the median over metrics."""
    metrics: Mapping[str, Noise]
    """Noise of each metric."""

    def to_json(self) -> dict[str, Any]:
        """The calibration as its schema has it."""
        data = asdict(self)
        del data["source"]
        return {"schema_version": SCHEMA_VERSION, **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Read a parsed file that the schema has admitted."""
        fields = {name: data[name] for name in cls.__slots__ if name not in ("source", "metrics")}
        metrics = {name: Noise(**noise) for name, noise in data["metrics"].items()}
        return cls(**fields, source=source, metrics=metrics)
