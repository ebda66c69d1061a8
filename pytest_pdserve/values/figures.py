"""Figures: values read from published plots. Claims can be judged by them, runs cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.text import Day
from pytest_pdserve.values.text import Word
from pytest_pdserve.values.workload import Length
from pytest_pdserve.values.workload import Prompts
from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A value read from a plot."""

    value: Annotated[float, Meta(gt=0, le=LARGEST)]
    """Value in the metric's unit."""
    uncertainty: Annotated[float, Meta(ge=0, le=LARGEST)]
    """Error of the reading, in the same unit, without run-to-run noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureCell:
    """Readings of one cell."""

    source: Literal["figure"]
    """Kind of source."""
    runs: Literal[1]
    """Number of runs of each value."""
    topology: str
    """Topology id."""
    input_len: Length
    """Prompt length, tokens."""
    output_len: Length
    """Generated tokens per request."""
    num_prompts: Prompts
    """Requests, sent all at once."""
    metrics: Annotated[Mapping[str, Reading], Meta(min_length=1)]
    """Readings by metric."""

    @property
    def workload(self) -> Workload:
        """Load of the cell."""
        return Workload(
            input_len=self.input_len, output_len=self.output_len, num_prompts=self.num_prompts
        )


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Readings of published plots: one run per cell, means only, no variance."""

    source: str
    """File it was read from."""
    title: Word
    """Title and place of the publication."""
    date: Day
    """Day of the publication."""
    versions: Mapping[str, str]
    """Versions of the servers."""
    method: Annotated[str, Meta(min_length=1)]
    """How values were read."""
    record: Annotated[tuple[FigureCell, ...], Meta(min_length=1)]
    """Cells."""

    @cached_property
    def cells(self) -> Mapping[tuple[str, str], Mapping[str, Reading]]:
        """Readings by metric of each cell, by topology and workload id."""
        return {(cell.topology, cell.workload.id): cell.metrics for cell in self.record}

    @property
    def origin(self) -> str:
        """File, title and date, for messages."""
        return f"figure: {self.source} ({self.title}, {self.date}; one run per cell, means only)"
