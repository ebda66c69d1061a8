"""Changes of metrics in a history of nights, and what else changed on these nights."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

Kind = Literal["step", "drift"]
"""A new level from one night on, or a gradual change."""
COUNTED_STATUSES = ("valid", "unproven")
"""Statuses of runs in a history whose values count, as for verdicts."""
SERIES_COLUMNS = ("system", "client_kind", "topology", "workload", "metric")
"""Columns of a history's values that identify a series of nights."""
MIN_CHANGE = 0.01
"""Default of the smallest change that is reported, as a fraction."""
MIN_NIGHTS = 10
"""Minimum number of nights of a cell to find changes, since fewer do not show their noise."""
NEARBY = 3
"""Number of nights before and after that are searched if nothing changed on the night itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackDifference:
    """A difference between two nights."""

    what: str
    """Package, ``image``, ``nodes``, or ``system file`` for hardware and serving arguments."""
    before: tuple[str, ...]
    """Values before, sorted; empty if it did not exist."""
    after: tuple[str, ...]
    """Values after, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackChange:
    """Differences of the stack from one night on."""

    night: date
    """First night with them."""
    nights_off: int
    """Nights from the dated change to it: 0 on that night itself, negative before it."""
    differences: tuple[StackDifference, ...]
    """Versions first; at least one."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SeriesName:
    """Metric and cell of a series of nights."""

    system: str
    client_kind: str
    topology: str
    workload: str
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange:
    """A step or a drift of one metric of one cell."""

    name: SeriesName
    """Metric and cell."""
    kind: Kind
    """Step or drift."""
    since: date
    """Last night at the old level."""
    first: date
    """The night after it that was measured: the first one that a step changes."""
    last: date
    """First night at the new level: of a drift its end, of a step the same as :attr:`first`."""
    goes_on: bool
    """True if it is a drift that reaches the newest nights, so that its end is not known."""
    before: float
    """Level before it, in the metric's unit."""
    after: float
    """Level after it, in the metric's unit."""
    strength: float
    """Size of the change, in standard deviations of a night."""

    @property
    def change(self) -> float:
        """Change as a fraction: 0.04 is 4 % more."""
        return self.after / self.before - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricChange:
    """The cells of a topology whose metric rose, or fell."""

    topology: str
    metric: str
    cells: tuple[CellChange, ...]
    """Cells that changed, the largest change first."""
    measured: int
    """Cells of the topology that have this metric on enough nights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedChange:
    """Changes of one kind that are dated to the same nights."""

    system: str
    client_kind: str
    kind: Kind
    since: date
    """Last night at the old level."""
    first: date
    """First night at another level, as most of the evidence has it."""
    last: date
    """First night at the new level: the same for a step."""
    goes_on: bool
    """True if it is a drift that reaches the newest nights, so that its end is not known."""
    metrics: tuple[MetricChange, ...]
    """Metrics by topology, those of most cells first."""
    stack: StackChange | None
    """What changed that night, or on the nearest night; None if nothing that is recorded did."""
    nodes_known: bool
    """True if it is recorded which nodes served before and after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenNight:
    """A single night that is far from the nights around it; a change is not made of it."""

    system: str
    client_kind: str
    night: date
    series: int
    """Metrics of cells that are far off."""
    measured: int
    """Metrics of cells that were measured that night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A session that is left out."""

    system: str
    session: str
    night: date | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """All that is found in a history."""

    changes: tuple[DatedChange, ...]
    """Oldest first."""
    broken: tuple[BrokenNight, ...]
    """Oldest first."""
    excluded: tuple[Excluded, ...]
    """Sessions that are left out, oldest first."""
    cells: int
    """Cells that have a metric on enough nights."""
    series: int
    """Metrics of cells that were looked at."""
    short: int
    """Metrics of cells that were measured on too few nights."""
    nights: int
    """Nights that were looked at, of all systems."""
    first: date | None
    """The oldest of them."""
    last: date | None
    """The newest of them."""
    min_change: float
    """Smallest reported change, as a fraction."""
