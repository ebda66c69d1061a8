"""Baselines: the envelopes that runs of one system and suite may show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.metrics import Better
from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sources import Sources
from pytest_pdserve.values.text import Word

Positive = Annotated[float, Meta(gt=0, le=LARGEST)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The values of one metric that a run may show in one cell.

    The limit always holds. It is the only judge of an envelope without :attr:`values`; of one with
    them it is far out, and the judgement of nights says what is worse within it.
    """

    ref: Annotated[float, Meta(ge=0, le=LARGEST)]
    """Reference, in the metric's own unit."""
    rtol: Annotated[float, Meta(ge=0, le=10)]
    """Room toward worse, as a fraction of *ref*; 0.10 is 10 %."""
    better: Better
    """Direction."""
    unit: str
    """Unit of the metric."""
    runs: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Runs that the reference comes from."""
    values: Annotated[tuple[Positive | None, ...], Meta(min_length=1)] | None = None
    """One value per run of the baseline's provenance, None where the cell has none: what nightly
    judgement goes by. None where the limit alone decides."""
    known_issue: Word | None = None
    """Why the metric is expected to miss; when it does not, that fails (strict)."""

    @property
    def limit(self) -> float:
        """Worst value that is admitted."""
        if self.better == "higher":
            return self.ref * (1 - self.rtol)
        return self.ref * (1 + self.rtol)

    def admits(self, value: float) -> bool:
        """Tell whether *value* is no worse than the limit; NaN never is."""
        if math.isnan(value):
            return False
        if self.better == "equal":
            return value == self.ref
        return value <= self.limit if self.better == "lower" else value >= self.limit


Metrics = Annotated[Mapping[Word, Envelope], Meta(min_length=1)]
Cells = Mapping[Word, Mapping[Word, Metrics]]
"""Topology, workload, metric -> envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What one suite expects of one system."""

    system: Word
    """System's name."""
    suite: Word
    """Suite, e.g. ``sweep``."""
    source: str
    """File it was read from, or will be written to."""
    provenance: Sources | None
    """Sessions, date, versions, fingerprint; None of a baseline that does not exist."""
    cells: Cells
    """Envelopes by topology, workload and metric."""

    def envelopes(self, topology: str, workload: str) -> Mapping[str, Envelope] | None:
        """Envelopes of one cell; None if the baseline does not know it."""
        return self.cells.get(topology, {}).get(workload)

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Topology and workload id of every cell."""
        return tuple(
            (topology, workload) for topology in self.cells for workload in self.cells[topology]
        )

    @property
    def has_values(self) -> bool:
        """Whether any envelope has values of runs, so that nights can be judged."""
        cells = (cell for workloads in self.cells.values() for cell in workloads.values())
        return any(envelope.values for cell in cells for envelope in cell.values())

    @property
    def runs(self) -> tuple[SessionRef, ...]:
        """Sessions, in the order of the envelopes' values."""
        return self.provenance.runs if self.provenance else ()

    @property
    def origin(self) -> str:
        """File, versions and date, for messages."""
        if self.provenance is None:
            return self.source
        versions = self.provenance.versions
        said = [f"{label} {versions[key]}" for key, label in _LABELS if key in versions]
        return f"{self.source} ({', '.join([*said, self.provenance.date])})"


_LABELS = (("vllm", "vLLM"), ("nixl", "NIXL"), ("vllm-router", "router"))
