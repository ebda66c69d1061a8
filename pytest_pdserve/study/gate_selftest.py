"""Self-test of the gate rule: simulated gates, their verdicts, and the targets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_pdserve.study.gate_noise import KINDS
from pytest_pdserve.study.gate_noise import REFERENCE
from pytest_pdserve.study.gate_noise import gate_noise_named
from pytest_pdserve.study.gate_trials import LAYOUTS
from pytest_pdserve.study.gate_trials import TRIALS
from pytest_pdserve.study.gate_trials import GateTrial
from pytest_pdserve.study.gate_trials import count_gates
from pytest_pdserve.study.rates import NORMAL_95
from pytest_pdserve.study.rates import Tally
from pytest_pdserve.study.selftest import check_numbers
from pytest_pdserve.study.selftest import count_tasks
from pytest_pdserve.values.errors import ConfigError

MAX_GATES = 1_000_000
"""Largest number of gates of a row, which takes hours."""
CHUNK = 100
"""Gates that one task judges."""
TARGET_LAYOUT = "40 cells"
"""Layout that the targets are for."""
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTarget:
    """A bound that one row must meet."""

    trial: GateTrial
    """The row."""
    what: str
    """Name of a rate of the tally, or of samples whose mean is bounded."""
    is_mean: bool = False
    """True if the target bounds the mean of samples instead of a rate."""
    at_most: float = math.inf
    """Largest share or mean."""
    at_least: float = -math.inf
    """Least share or mean."""

    def missed(self, tally: Tally) -> str | None:
        """Return how the target is missed, if the whole interval is beyond it; else None."""
        value_and_interval = (
            mean_of(tally, self.what) if self.is_mean else share_of(tally, self.what)
        )
        if value_and_interval is None:
            return f"{self.trial.name}: {self.what} was not counted"
        value, (low, high) = value_and_interval
        if low <= self.at_most and high >= self.at_least:
            return None
        above = low > self.at_most
        side, bound = ("at most", self.at_most) if above else ("at least", self.at_least)
        scale, unit = (1.0, "") if self.is_mean else (100.0, " %")
        shown = f"{scale * value:.2f}{unit} ({scale * low:.2f} to {scale * high:.2f})"
        return f"{self.trial.name}: {self.what} {shown}, target {side} {scale * bound:g}{unit}"


def share_of(tally: Tally, what: str) -> tuple[float, Interval] | None:
    """Return a share and its interval of 95 %; None if it was not counted."""
    rate = tally.rate(what)
    return (rate.share, rate.interval) if rate.of else None


def mean_of(tally: Tally, what: str) -> tuple[float, Interval] | None:
    """Return the mean of samples and its interval of 95 %; None if there are none."""
    values = tally.samples.get(what, [])
    if not values:
        return None
    mean, error = float(np.mean(values)), float(np.std(values)) / math.sqrt(len(values))
    return mean, (mean - NORMAL_95 * error, mean + NORMAL_95 * error)


_EQUAL = GateTrial(noise=REFERENCE)
_CELL = GateTrial(noise=REFERENCE, size=0.05, where="a cell")
_METRIC = GateTrial(noise=REFERENCE, size=0.05, where="one metric")
_SMALL = GateTrial(noise=REFERENCE, size=0.03, where="a cell")
TARGETS = (
    GateTarget(trial=_EQUAL, what="NO-GO", at_most=0.005),
    GateTarget(trial=_EQUAL, what="GO", at_least=0.99),
    GateTarget(trial=_EQUAL, what="blocks of a cell", is_mean=True, at_most=3.0),
    GateTarget(trial=_CELL, what="NO-GO", at_least=0.99),
    GateTarget(trial=_CELL, what="blocks to NO-GO", is_mean=True, at_most=3.5),
    GateTarget(trial=_METRIC, what="NO-GO", at_least=0.97),
    GateTarget(trial=_METRIC, what="blocks to NO-GO", is_mean=True, at_most=3.5),
    GateTarget(trial=_SMALL, what="GO", at_most=0.01),
    *(GateTarget(trial=GateTrial(noise=kind), what="NO-GO", at_most=0.01) for kind in KINDS[1:]),
)
"""Bounds that the gate rule must meet (docs/gate-rule.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The counts of one self-test of the gate rule."""

    gates: int
    """Gates of every row."""
    seed: int
    """Seed of every draw."""
    tallies: Mapping[tuple[str, str], Tally]
    """Counts by name of row and layout."""

    def trials(self) -> tuple[GateTrial, ...]:
        """Return the rows that were drawn."""
        return tuple(trial for trial in TRIALS if (trial.name, TARGET_LAYOUT) in self.tallies)

    @property
    def missed(self) -> tuple[str, ...]:
        """A phrase for each target that is missed by more than chance."""
        return tuple(self._missed())

    def _missed(self) -> Iterator[str]:
        for target in TARGETS:
            tally = self.tallies.get((target.trial.name, TARGET_LAYOUT))
            missed = target.missed(tally) if tally is not None else None
            if missed is not None:
                yield missed
        for (trial, layout), tally in self.tallies.items():
            without = tally.rate("without forecast").hits
            if without:
                yield f"{trial}, {layout}: {without:g} gates without a forecast, target none"


def gate_selftest(
    *, gates: int, seed: int, noise: str | None = None, workers: int = 1
) -> GateReport:
    """Judge simulated gates and count their verdicts.

    :param gates: number of gates of every row.
    :param noise: name of the one kind of noise to draw; None for all.
    :param workers: processes; the figures do not depend on them.
    :raises ConfigError: if the kind is unknown, or a number is out of range.
    """
    if not 1 <= gates <= MAX_GATES:
        raise ConfigError(f"--gates {gates!s:.30}: expected 1 to {MAX_GATES:,}")
    check_numbers(seed=seed, workers=workers)
    kind = gate_noise_named(noise) if noise is not None else None
    rows = [row for row, trial in enumerate(TRIALS) if kind in (None, trial.noise)]
    tasks = list(_tasks(rows, gates, seed))
    tallies = {(TRIALS[row].name, layout): Tally() for row in rows for layout in LAYOUTS}
    for (row, layout, *_), tally in zip(tasks, count_tasks(_count, tasks, workers), strict=True):
        tallies[TRIALS[row].name, layout].add(tally)
    return GateReport(gates=gates, seed=seed, tallies=tallies)


Task = tuple[int, str, int, int, int]
"""Index of the row, name of the layout, seed, number of the chunk, gates in the chunk."""


def _tasks(rows: Sequence[int], gates: int, seed: int) -> Iterator[Task]:
    for row in rows:
        for layout in LAYOUTS:
            for chunk, first in enumerate(range(0, gates, CHUNK)):
                yield row, layout, seed, chunk, min(CHUNK, gates - first)


def _count(task: Task) -> Tally:
    row, layout, seed, chunk, gates = task
    place = row, list(LAYOUTS).index(layout), chunk
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
    return count_gates(TRIALS[row], rng, layout=LAYOUTS[layout], gates=gates)
