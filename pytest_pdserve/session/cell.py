"""The runs of one cell in a session."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Cell:
    """All runs of one workload on one topology in this session."""

    records: tuple[Record, ...]
    """At least one."""
    paths: tuple[Path, ...]
    """Files of the records, in the same order."""

    def __repr__(self) -> str:
        """Return a short text, for tracebacks."""
        return f"<Cell {self.topology} {self.workload.id}, {len(self.records)} runs>"

    @property
    def topology(self) -> str:
        """Topology id."""
        return self.records[0].topology

    @property
    def workload(self) -> Workload:
        """Load of the runs."""
        return self.records[0].workload

    def value(self, metric: str) -> float | None:
        """Return the median over all runs; None if one lacks the metric, or a finding voids it."""
        present = values_of(self.records, metric)
        return None if present is None else statistics.median(present)
