"""Figures: values read off somebody's plots. They are sides of claims, and never envelopes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Self

from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value off a plot."""

    value: float
    """In the metric's unit."""
    uncertainty: float
    """How far the reading may be off, in the same unit; run-to-run noise is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What somebody's plots show: one run per cell, means only, no variance."""

    source: str
    """File it was read from."""
    title: str
    """What was plotted, and where."""
    date: str
    """When it was published."""
    cells: Mapping[tuple[str, str], Mapping[str, Reading]]
    """Readings by metric, of each topology and workload id."""

    @property
    def origin(self) -> str:
        """File and what it is, for messages."""
        return f"figure: {self.source} ({self.title}, {self.date}; one run per cell, means only)"

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Build figures that the schema has admitted."""
        cells = {
            (record["topology"], _workload_id(record)): {
                name: Reading(value=float(said["value"]), uncertainty=float(said["uncertainty"]))
                for name, said in record["metrics"].items()
            }
            for record in data["record"]
        }
        return cls(source=source, title=data["title"], date=data["date"], cells=cells)


def _workload_id(record: Mapping[str, Any]) -> str:
    return Workload(
        input_len=record["input_len"],
        output_len=record["output_len"],
        num_prompts=record["num_prompts"],
    ).id
