"""Baselines: the envelopes that runs of one system and suite may show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Self

from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import Better

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The values of one metric that a run may show in one cell.

    The limit always holds. It is the only judge of an envelope without :attr:`values`; of one with
    them it is far out, and the judgement of nights says what is worse within it.
    """

    metric: str
    """Name as ``vllm bench serve`` writes it, e.g. ``p99_ttft_ms``."""
    ref: float
    """Reference, in the metric's own unit."""
    rtol: float
    """Room toward worse, as a fraction of *ref*; 0.10 is 10 %."""
    better: Better
    """Direction."""
    runs: int
    """Runs that the reference comes from."""
    values: tuple[float | None, ...] = ()
    """One value per run of the baseline's provenance, None where the cell has none: what nightly
    judgement goes by. Empty where the limit alone decides."""
    known_issue: str | None = None
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

    def to_json(self) -> dict[str, Any]:
        """The envelope as its schema has it."""
        data: dict[str, Any] = {
            "ref": self.ref,
            "rtol": self.rtol,
            "better": self.better,
            "unit": METRICS[self.metric].unit,
            "runs": self.runs,
        }
        if self.values:
            data["values"] = list(self.values)
        return data if self.known_issue is None else {**data, "known_issue": self.known_issue}


Cells = Mapping[str, Mapping[str, Mapping[str, Envelope]]]
"""Topology, workload, metric -> envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What one suite expects of one system."""

    system: str
    """System's name."""
    suite: str
    """Suite, e.g. ``sweep``."""
    source: str
    """File it was read from, or will be written to."""
    provenance: Mapping[str, Any]
    """Run ids, date, versions, fingerprint."""
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
    def runs(self) -> tuple[str, ...]:
        """Run ids, in the order of the envelopes' values."""
        return tuple(self.provenance.get("runs", ()))

    @property
    def origin(self) -> str:
        """File, versions and date, for messages."""
        if not self.provenance:
            return self.source
        versions = self.provenance.get("versions", {})
        said = [f"{label} {versions[key]}" for key, label in _LABELS if key in versions]
        said.append(str(self.provenance.get("date", "date unknown")))
        return f"{self.source} ({', '.join(said)})"

    def to_json(self) -> dict[str, Any]:
        """The baseline as its schema has it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "system": self.system,
            "suite": self.suite,
            "provenance": dict(self.provenance),
            "topologies": {
                topology: {
                    workload: {
                        name: envelope.to_json() for name, envelope in sorted(metrics.items())
                    }
                    for workload, metrics in sorted(workloads.items())
                }
                for topology, workloads in sorted(self.cells.items())
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Read a parsed file that the schema has admitted."""
        return cls(
            system=data["system"],
            suite=data["suite"],
            source=source,
            provenance=data["provenance"],
            cells={
                topology: {
                    workload: {
                        name: Envelope(
                            metric=name,
                            ref=float(entry["ref"]),
                            rtol=float(entry["rtol"]),
                            better=entry["better"],
                            runs=entry["runs"],
                            values=tuple(entry.get("values", ())),
                            known_issue=entry.get("known_issue"),
                        )
                        for name, entry in metrics.items()
                    }
                    for workload, metrics in workloads.items()
                }
                for topology, workloads in data["topologies"].items()
            },
        )


_LABELS = (("vllm", "vLLM"), ("nixl", "NIXL"), ("vllm-router", "router"))
