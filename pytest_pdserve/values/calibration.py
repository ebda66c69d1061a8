"""Calibrations: the noise of a system on which nothing changes, and floors that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

from pytest_pdserve.values.numbers import growth
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.workload import Workload

MEASURED = "measured"
"""Role of the runs from which spreads are computed."""
MIN_STARTS = 3
"""Minimum number of starts to compute the spread between starts."""
MIN_NIGHTS = 5
"""Minimum number of nights to lower a floor."""
CellName = tuple[str, str]
"""Topology, and workload id without its number of prompts."""
CellLoad = tuple[CellName, int]
"""Cell and number of prompts."""


def cell_name(topology: str, workload: Workload) -> CellName:
    """Return the name of a cell without its number of prompts."""
    parts = (text for name, text in workload.parts.items() if name != "prompts")
    return topology, "-".join(parts)


def limit_of(spread: float) -> float:
    """Return the limit of the nightly rule for a spread, as a fraction.

    :param spread: standard deviation of nights, of logarithms.
    """
    return growth(RULE.spreads * spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRun:
    """A run of a series in which nothing was changed."""

    topology: str
    """Topology id."""
    workload: Workload
    """Load; its number of prompts is known."""
    prompts: int
    """Number of prompts."""
    start: str
    """Id of the start of the servers, unique in the series."""
    night: str
    """Id of the night of that start."""
    order: int
    """Number of earlier runs of the cell on the same start."""
    role: str = MEASURED
    """Purpose of the run; only runs with :data:`MEASURED` are used for spreads."""
    values: Mapping[str, float]
    """Values by metric, each above 0, without voided ones."""
    load_s: float | None = None
    """Duration of the load, seconds; None if not known."""

    @property
    def cell(self) -> CellName:
        """Name of its cell, without the number of prompts."""
        return cell_name(self.topology, self.workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Runs between which nothing was changed, from one source."""

    source: str
    """File or folder from which they were read."""
    runs: tuple[CalibrationRun, ...]
    """Runs; at least one has role :data:`MEASURED`."""
    left_out: tuple[str, ...] = ()
    """Runs that were not used and why, a phrase each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A standard deviation of logarithms, with its 90 % interval."""

    value: float
    """Estimate; 0.01 is 1 %."""
    low: float
    """Lower bound."""
    high: float
    """Upper bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNoise:
    """Spread of one metric of a cell at one number of prompts."""

    cell: CellName
    prompts: int
    """Number of prompts."""
    metric: str
    starts: int
    """Number of starts."""
    runs: int
    """Number of runs on these starts."""
    load_s: float | None
    """Median duration of a load, seconds."""
    night: Spread
    """Spread of runs on different starts, which is that of nights with one run."""
    within: Spread | None = None
    """Spread of runs on one start; None if too few starts have two runs."""
    between: Spread | None = None
    """Spread of starts: :attr:`night` without :attr:`within`; None as above."""
    is_rounded: bool = False
    """True if values are rounded too coarsely for a robust estimate."""

    @property
    def limit(self) -> float:
        """Limit of the nightly rule without a floor, as a fraction."""
        return limit_of(self.night.value)

    def at(self, prompts: float) -> float:
        """Return the spread of nights expected at another number of prompts.

        The spread within a start decreases with the square root of the prompts; the spread between
        starts does not change.

        :param prompts: number of prompts; may be infinite.
        """
        if self.within is None or self.between is None or prompts == self.prompts:
            return self.night.value
        within = self.within.value * math.sqrt(self.prompts / prompts)
        return math.hypot(self.between.value, within)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRun:
    """First runs on a start, if they differ from the later ones of their cell."""

    cell: CellName
    prompts: int
    """Number of prompts."""
    role: str
    """Role of the first runs."""
    starts: int
    """Number of starts with such a run."""
    changes: Mapping[str, float]
    """Change as a logarithm by metric that differs; positive is worse."""
    is_left_out: bool
    """True if the cell's spreads are computed without its first runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRatio:
    """Ratio of the spreads within a start at two numbers of prompts."""

    short: int
    """Smaller number of prompts."""
    long: int
    """Larger number of prompts."""
    ratio: float
    """Spread at :attr:`long` divided by that at :attr:`short`: median of all cells and metrics."""
    pairs: int
    """Number of metrics of cells that have both."""

    @property
    def expected(self) -> float:
        """Ratio expected from the square root."""
        return math.sqrt(self.short / self.long)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNoise:
    """Spread of one metric over all cells, and the floor that follows."""

    metric: str
    cells: int
    """Number of measured cells."""
    within: float | None
    """Median of the cells' spreads within a start; None if no cell has it."""
    between: float | None
    """Median of the cells' spreads between starts; None as above."""
    night: float
    """Median of the cells' spreads of nights."""
    quietest: float
    """Smallest spread of nights."""
    noisiest: float
    """Largest spread of nights."""
    floor: float
    """Proposed floor, as a fraction."""
    is_held: bool
    """True if five spreads are below the present floor, but nights are too few to lower it."""
    sees: float
    """Largest limit of all cells with this floor, at most twice the floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Expected limits of all cells at one number of prompts."""

    prompts: float | None
    """Number of prompts, may be infinite; None for the loads that were measured."""
    longest_load_s: float | None
    """Duration of the longest load, seconds; None if not known."""
    kept: int
    """Number of metrics of cells whose limit is at most the promised one."""
    of: int
    """Number of metrics of cells."""
    floors: Mapping[str, float]
    """Five typical spreads by metric, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InsensitiveMetric:
    """A metric of a cell whose limit is larger than the system promises."""

    noise: CellNoise
    """Its noise."""
    promise: float
    """Promised limit, as a fraction."""
    prompts: int | None
    """Number of prompts needed to keep the promise; None if more do not help, or it is unknown."""
    starts: int | None
    """Starts per night needed with the same load, as their median; None if nine are too few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Noise of a system, computed from a series."""

    source: str
    """File or folder of the series."""
    cells: int
    """Number of cells with a spread."""
    starts: int
    """Number of starts."""
    nights: int
    """Number of nights."""
    runs: int
    """Number of runs."""
    noise: tuple[CellNoise, ...]
    """Noise by cell, prompts and metric."""
    metrics: tuple[MetricNoise, ...]
    """Noise of every metric at the longest load of each cell."""
    forecasts: tuple[Forecast, ...]
    """Forecasts for the measured loads, then longer ones; empty if no start has two runs."""
    insensitive: tuple[InsensitiveMetric, ...] = ()
    """Metrics of cells whose limit is larger than the system promises."""
    prompts: int | None = None
    """Proposed number of prompts; None if longer loads do not help."""
    first_runs: tuple[FirstRun, ...] = ()
    """First runs on a start that differ from later ones."""
    ratios: tuple[LoadRatio, ...] = ()
    """Ratios of cells that were measured with two loads."""
    cell_starts: Mapping[CellLoad, int] = field(default_factory=dict)
    """Number of starts of each cell, of the metric that has most."""
    few_starts: tuple[CellLoad, ...] = ()
    """Cells with too few starts for any spread."""
    single_runs: tuple[CellLoad, ...] = ()
    """Cells with too few starts that have two runs: spreads within and between are unknown."""
