"""Calibrations: how noisy a system is when nothing changes, and what follows for its floors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.values.numbers import growth
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.workload import Workload

MEASURED = "measured"
"""Role of the runs that spreads are made of."""
MIN_STARTS = 3
"""Starts without which nothing is said of what belongs to a start."""
MIN_NIGHTS = 5
"""Nights without which no floor is lowered."""
CellName = tuple[str, str]
"""Topology, and workload without its number of prompts."""
CellLoad = tuple[CellName, int]
"""Cell and number of prompts."""


def cell_name(topology: str, workload: Workload) -> CellName:
    """Return the name of a cell, whatever the number of its prompts."""
    parts = (text for name, text in workload.parts.items() if name != "prompts")
    return topology, "-".join(parts)


def limit_of(spread: float) -> float:
    """Return the limit that the nightly rule makes of a spread, as a fraction.

    :param spread: standard deviation of nights, logarithm.
    """
    return growth(RULE.spreads * spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRun:
    """One run of a series in which nothing was changed."""

    topology: str
    """Topology id."""
    workload: Workload
    """What was asked; its number of prompts is known."""
    prompts: int
    """That number."""
    start: str
    """Names the start of the servers among all of the series."""
    night: str
    """Names the night of that start."""
    order: int
    """Runs of the cell on the same start before it."""
    role: str = MEASURED
    """What the run was for; others than :data:`MEASURED` are not part of any spread."""
    values: Mapping[str, float]
    """Value by metric, each above 0; voided ones are absent."""
    load_s: float | None = None
    """How long the load took, seconds; None where that is not known."""

    @property
    def cell(self) -> CellName:
        """Its cell, whatever the number of prompts."""
        return cell_name(self.topology, self.workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Runs between which nothing was changed."""

    source: str
    """File or folder that they were read from."""
    runs: tuple[CalibrationRun, ...]
    """At least one of role :data:`MEASURED`."""
    left_out: tuple[str, ...] = ()
    """What was not used and why, a phrase each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A standard deviation of logarithms, with its 90 % interval."""

    value: float
    """Estimate; 0.01 is 1 %."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNoise:
    """How one metric of a cell varies at one number of prompts."""

    cell: CellName
    """Cell."""
    prompts: int
    """Number of prompts."""
    metric: str
    """Metric."""
    starts: int
    """Starts that it was measured on."""
    runs: int
    """Runs on them."""
    load_s: float | None
    """Median duration of a load, seconds."""
    night: Spread
    """Between runs of different starts: how nights of one run vary."""
    within: Spread | None = None
    """Between runs of one start; None where too few starts have two runs."""
    between: Spread | None = None
    """What :attr:`night` has beside :attr:`within`: what belongs to the start; None as above."""
    is_rounded: bool = False
    """Whether values are rounded too coarsely for a robust estimate."""

    @property
    def limit(self) -> float:
        """Limit that the nightly rule makes of it, without a floor, as a fraction."""
        return limit_of(self.night.value)

    def at(self, prompts: float) -> float:
        """Return the spread of nights expected at another number of prompts.

        The part within a start falls with the square root; the other part stays.

        :param prompts: number of prompts; may be infinite.
        """
        if self.within is None or self.between is None or prompts == self.prompts:
            return self.night.value
        within = self.within.value * math.sqrt(self.prompts / prompts)
        return math.hypot(self.between.value, within)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRun:
    """First runs on a start that differ from the later ones of their cell."""

    cell: CellName
    """Cell."""
    prompts: int
    """Number of prompts."""
    role: str
    """Role of the first runs."""
    starts: int
    """Starts that have one."""
    changes: Mapping[str, float]
    """By how much, signed logarithm, of each metric that differs; positive is worse."""
    is_left_out: bool
    """Whether the spreads of the cell are made without its first runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRatio:
    """How the part within a start changed from one number of prompts to another."""

    short: int
    """Fewer prompts."""
    long: int
    """More prompts."""
    ratio: float
    """Spread at :attr:`long` over that at :attr:`short`: the median of all cells and metrics."""
    pairs: int
    """Cells and metrics that have both."""

    @property
    def expected(self) -> float:
        """What the square root leads to expect."""
        return math.sqrt(self.short / self.long)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNoise:
    """How one metric varies over all cells, and the floor that follows."""

    metric: str
    """Metric."""
    cells: int
    """Cells that were measured."""
    within: float | None
    """Median over the cells; None where no cell has it."""
    between: float | None
    """Median over the cells; None as above."""
    night: float
    """Median over the cells."""
    quietest: float
    """Least of all cells' nights."""
    noisiest: float
    """Largest."""
    floor: float
    """Proposed floor, as a fraction."""
    is_held: bool
    """Whether five spreads are less than the present floor, and nights too few to lower it."""
    sees: float
    """Limit that every cell keeps with this floor, but no more than twice the floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is expected of all cells at one number of prompts."""

    prompts: float | None
    """Number of prompts, may be infinite; None stands for the loads that were measured."""
    longest_load_s: float | None
    """Duration of the longest load, seconds; None where no duration is known."""
    kept: int
    """Metrics of cells, each counted, whose limit is what the system promises or less."""
    of: int
    """Metrics of cells."""
    floors: Mapping[str, float]
    """Five typical spreads by metric, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """A metric of a cell that sees less than the system promises."""

    noise: CellNoise
    """Its noise."""
    promise: float
    """Limit that the system promises, as a fraction."""
    prompts: int | None
    """Prompts that it needs; None where more prompts cannot help or nobody knows."""
    starts: int | None
    """Starts a night, as a median, that would do with the same load; None if nine do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a series says of a system's noise."""

    source: str
    """File or folder of the series."""
    cells: int
    """Cells that spreads are known of."""
    starts: int
    """Starts in all."""
    nights: int
    """Nights in all."""
    runs: int
    """Runs in all."""
    noise: tuple[CellNoise, ...]
    """By cell, prompts and metric."""
    metrics: tuple[MetricNoise, ...]
    """Every metric at the longest load of each cell."""
    forecasts: tuple[Forecast, ...]
    """The measured loads, then ever longer ones; empty where no cell has two runs on a start."""
    blind: tuple[Blind, ...] = ()
    """Metrics of cells that see less than the system promises."""
    prompts: int | None = None
    """Proposed number of prompts; None where longer loads do not help."""
    first_runs: tuple[FirstRun, ...] = ()
    """First runs that differ."""
    ratios: tuple[LoadRatio, ...] = ()
    """Where two loads were measured."""
    few_starts: tuple[CellLoad, ...] = ()
    """Cells of too few starts for any spread."""
    single_runs: tuple[CellLoad, ...] = ()
    """Cells of which too few starts have two runs, so that the parts are not known."""
