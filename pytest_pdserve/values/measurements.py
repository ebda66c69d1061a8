"""Measurements of one side of a comparison, from any source."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Literal

from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.workload import Workload

Evidence = Literal["start", "night", "reading"]
"""Unit of evidence: a start of the servers, a night of a baseline, a reading from a plot."""
Facts = Mapping[str, Mapping[str, str]]
"""Facts other than the load: group (one of :data:`GROUPS`) -> name -> value."""
GROUPS = ("origin", "versions", "flags", "settings", "hardware", "client", "conditions")
"""Groups of facts, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """A run, a night of a baseline, or a cell of plots."""

    where: str
    """File, or place in it, for messages."""
    topology: str
    """Topology id; ``unknown`` if not known."""
    workload_id: str
    """Workload id."""
    workload: Workload | None = None
    """Load; None if only its id is known, e.g. in a baseline whose loads the system file no longer
    has."""
    evidence: tuple[str, ...]
    """Key of the start, night or reading: runs with the same key count once."""
    at: str | None = None
    """Start time, UTC, ISO 8601; None if not known."""
    system: str | None = None
    """Name of the system; None if not known."""
    client: str
    """Kind of the benchmark client."""
    metrics: Mapping[str, float]
    """Value by metric."""
    voids: Mapping[str, str] = field(default_factory=dict)
    """Voided metrics, with the reason."""
    invalid: tuple[str, ...] = ()
    """Why the run is invalid; empty for a valid one."""
    unproven: bool = False
    """True if a check could not be made."""
    facts: Facts = field(default_factory=dict)
    """Versions, flags, hardware and other facts of the measurement."""

    @property
    def key(self) -> Key:
        """Topology and workload id."""
        return self.topology, self.workload_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCell:
    """All runs of one cell."""

    runs: tuple[MeasuredRun, ...]
    """At least one run, oldest first."""

    @property
    def topology(self) -> str:
        """Topology id."""
        return self.runs[0].topology

    @property
    def workload(self) -> Workload | None:
        """Load; None if only its id is known."""
        return self.runs[0].workload

    @property
    def workload_id(self) -> str:
        """Workload id."""
        return self.runs[0].workload_id

    @property
    def counted(self) -> tuple[MeasuredRun, ...]:
        """First valid run of every start; later runs are not independent of it."""
        first: dict[tuple[str, ...], MeasuredRun] = {}
        for run in self.runs:
            if not run.invalid:
                first.setdefault(run.evidence, run)
        return tuple(first.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """All measurements of one argument of a comparison."""

    name: str
    """The argument."""
    what: str
    """What the argument refers to, e.g. ``1 session``."""
    evidence: Evidence
    """Unit of evidence."""
    runs: tuple[MeasuredRun, ...]
    """Runs, oldest first, with invalid ones."""
    left_out: tuple[str, ...] = ()
    """Files that could not be read or were left out, a sentence each."""

    @property
    def cells(self) -> Mapping[Key, MeasuredCell]:
        """Cells by topology and workload id."""
        runs_by_cell: dict[Key, list[MeasuredRun]] = {}
        for run in self.runs:
            runs_by_cell.setdefault(run.key, []).append(run)
        return {key: MeasuredCell(runs=tuple(runs)) for key, runs in runs_by_cell.items()}


def values_of_fact(runs: Sequence[MeasuredRun], group: str, name: str) -> tuple[str, ...]:
    """Return the different values of a fact in *runs*, sorted; empty if not known."""
    values = {run.facts.get(group, {}).get(name) for run in runs}
    return tuple(sorted(value for value in values if value is not None))
