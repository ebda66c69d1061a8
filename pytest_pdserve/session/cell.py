"""The runs of one cell in this session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.judge.stats import location
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All runs of one workload on one topology in this session."""

    records: tuple[Record, ...]
    """At least one."""
    paths: tuple[Path, ...]
    """Their files."""

    @property
    def topology(self) -> str:
        """Topology id."""
        return self.records[0].topology

    @property
    def workload(self) -> Workload:
        """What was asked."""
        return self.records[0].workload

    def value(self, metric: str) -> float | None:
        """One number for all runs; None if one lacks the metric, or sanity voids it."""
        present = values_of(self.records, metric)
        if present is None:
            return None
        try:
            return location(present, METRICS[metric].better)
        except ValueError:
            return None
