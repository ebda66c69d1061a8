"""Measurements that are held against each other, whatever they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Literal

from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.workload import Workload

Evidence = Literal["start", "night", "reading"]
"""What counts once: a start of the servers, a night of a baseline, a reading off a plot."""
Facts = Mapping[str, Mapping[str, str]]
"""What may differ beside the load: one of :data:`GROUPS`, name -> value."""
GROUPS = ("origin", "versions", "flags", "settings", "hardware", "client", "conditions")
"""Groups of facts, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """One run, one night of a baseline, or one cell of plots."""

    where: str
    """File, or place in it, for messages."""
    topology: str
    """Topology id; ``unknown`` where nothing says it."""
    workload_id: str
    """Workload id."""
    workload: Workload | None = None
    """The load; None where only its id is known, as in a baseline of other loads than its system
    file has."""
    evidence: tuple[str, ...]
    """Names the start, night or reading that it is of: runs that share it count once."""
    at: str | None = None
    """When it began, UTC, ISO 8601; None where nothing says it."""
    system: str | None = None
    """Name of the system; None where nothing says it."""
    client: str
    """Kind of the benchmark client."""
    metrics: Mapping[str, float]
    """Value by metric."""
    voids: Mapping[str, str] = field(default_factory=dict)
    """Metrics that must not be judged, and why."""
    invalid: tuple[str, ...] = ()
    """Why the run is worthless; empty for a valid one."""
    unproven: bool = False
    """Whether something about it could not be checked."""
    facts: Facts = field(default_factory=dict)
    """What it was measured on and with."""

    @property
    def key(self) -> Key:
        """Topology and workload id."""
        return self.topology, self.workload_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCell:
    """All runs of one cell."""

    runs: tuple[MeasuredRun, ...]
    """At least one, oldest first."""

    @property
    def topology(self) -> str:
        """Topology id."""
        return self.runs[0].topology

    @property
    def workload(self) -> Workload | None:
        """The load; None where only its id is known."""
        return self.runs[0].workload

    @property
    def workload_id(self) -> str:
        """Workload id."""
        return self.runs[0].workload_id

    @property
    def counted(self) -> tuple[MeasuredRun, ...]:
        """The first valid run of every start: later ones share its servers."""
        first: dict[tuple[str, ...], MeasuredRun] = {}
        for run in self.runs:
            if not run.invalid:
                first.setdefault(run.evidence, run)
        return tuple(first.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Everything that one argument of a comparison stands for."""

    name: str
    """The argument."""
    what: str
    """What it was found to be, e.g. ``session``."""
    evidence: Evidence
    """What counts once."""
    runs: tuple[MeasuredRun, ...]
    """Runs, oldest first; the invalid ones too."""
    left_out: tuple[str, ...] = ()
    """What could not be read, or was left out, a sentence each."""

    @property
    def cells(self) -> Mapping[Key, MeasuredCell]:
        """Runs by topology and workload id."""
        found: dict[Key, list[MeasuredRun]] = {}
        for run in self.runs:
            found.setdefault(run.key, []).append(run)
        return {key: MeasuredCell(runs=tuple(runs)) for key, runs in found.items()}


def values_of_fact(runs: Sequence[MeasuredRun], group: str, name: str) -> tuple[str, ...]:
    """Return the values of a fact over *runs*, each once, sorted; empty where it is not known."""
    found = {run.facts.get(group, {}).get(name) for run in runs}
    return tuple(sorted(value for value in found if value is not None))
