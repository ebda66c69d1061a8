"""The gate rule on arrays: many metrics of one gate, or of thousands of simulated ones. Pure.

Values are logarithms, signed so that positive is worse. Arrays of runs have the axes ``(gates,
blocks, stacks, starts, subjects, metrics)``: stack 0 is A, the baseline, 1 is B, the candidate; a
block has two starts of each. Subjects are cells, or topologies. NaN is a missing value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pytest_pdserve.judge.gate.levels import allowed_pairs
from pytest_pdserve.judge.gate.levels import needed_against
from pytest_pdserve.judge.gate.levels import pairs_of
from pytest_pdserve.values.rules import GATE_RULE

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
STACKS = STARTS = 2
"""Stacks of a gate, and starts of each in a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Change from A to B; each of shape ``(gates, subjects, metrics)``, NaN if unknown."""

    estimate: Floats
    """Median of all pairs (Hodges and Lehmann 1963)."""
    low: Floats
    """Smallest pair after leaving out as many as may be beyond the margin."""
    high: Floats
    """Largest pair after leaving out as many as may be beyond the margin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """Cells, or topologies, of gates after some blocks."""

    logs: Floats
    """Every run; a metric that lacks one of the four runs of a block is NaN in all of them."""
    measured: Bools
    """True if any run had the metric, shape ``(gates, subjects, metrics)``."""
    good: Bools
    """True if the metric was good after any block, shape ``(gates, subjects, metrics)``."""

    @classmethod
    def unmeasured(cls, *, gates: int, subjects: int, metrics: int) -> Self:
        """Return subjects before the first block."""
        none = np.zeros((gates, subjects, metrics), dtype=bool)
        logs = np.empty((gates, 0, STACKS, STARTS, subjects, metrics))
        return cls(logs=logs, measured=none, good=none)

    def after(self, block: Floats, margins: Floats) -> Self:
        """Return the subjects after one more block.

        :param block: shape ``(gates, stacks, starts, subjects, metrics)``.
        :param margins: logarithm by metric.
        """
        missing = np.isnan(block)
        complete = np.where(missing.any(axis=(1, 2), keepdims=True), np.nan, block)
        grown = type(self)(
            logs=np.concatenate([self.logs, complete[:, None]], axis=1),
            measured=self.measured | ~missing.all(axis=(1, 2)),
            good=self.good,
        )
        enough = grown.pairs_beyond(margins) <= grown.pairs_allowed
        return type(self)(logs=grown.logs, measured=grown.measured, good=grown.good | enough)

    def of(self, gates: Bools) -> Self:
        """Return the subjects of some of the gates."""
        return type(self)(
            logs=self.logs[gates], measured=self.measured[gates], good=self.good[gates]
        )

    @property
    def blocks(self) -> Ints:
        """Complete blocks, shape ``(gates, subjects, metrics)`` like all arrays below."""
        complete: Ints = (~np.isnan(self.logs[:, :, 0, 0])).sum(axis=1)
        return complete

    @property
    def spread(self) -> Floats:
        """Standard deviation of a run: the subject's own, at least the metric's typical one.

        It does not contain the difference between A and B.
        """
        distances = np.abs(self.logs[:, :, :, 0] - self.logs[:, :, :, 1])
        distances = distances.reshape(
            len(distances), STACKS * distances.shape[1], *distances.shape[3:]
        )
        own = GATE_RULE.spread_factor * _median(distances, axis=1)
        count = np.maximum(1, STACKS * self.blocks)
        mean_square = np.nansum(distances**2, axis=1) / count
        root = np.where(np.isnan(own), np.nan, np.sqrt(mean_square / 2))
        typical: Floats = _median(root, axis=1)[:, None]
        widest: Floats = np.maximum(own, typical)
        return widest

    def limit(self, margins: Floats) -> Floats:
        """Return the difference above which a block counts against B; NaN without a block."""
        limit: Floats = np.maximum(
            GATE_RULE.margin_share * margins, GATE_RULE.spreads * self.spread
        )
        return limit

    def blocks_against(self, margins: Floats) -> Ints:
        """Return the number of blocks with both runs of B worse than both of A by the limit."""
        a, b = self.logs[:, :, 0], self.logs[:, :, 1]
        against: Ints = (b.min(axis=2) - a.max(axis=2) > self.limit(margins)[:, None]).sum(axis=1)
        return against

    def worse(self, margins: Floats) -> Bools:
        """Return which metrics make the gate NO-GO."""
        table = np.array([needed_against(blocks) for blocks in range(self.logs.shape[1] + 1)])
        worse: Bools = self.blocks_against(margins) >= table[self.blocks]
        return worse

    def pairs_beyond(self, margins: Floats) -> Ints:
        """Return the number of pairs with B worse than A by more than the margin."""
        a, b = self._runs(0), self._runs(1)
        beyond: Ints = np.zeros((len(a), *a.shape[2:]), dtype=np.int64)
        for run in range(b.shape[1]):
            beyond += (b[:, run, None] - a > margins).sum(axis=1)
        return beyond

    @property
    def pairs_allowed(self) -> Ints:
        """Pairs that may be beyond the margin in a good metric; -1 before enough blocks."""
        table = np.array([allowed_pairs(blocks) for blocks in range(self.logs.shape[1] + 1)])
        allowed: Ints = table[self.blocks]
        return allowed

    @property
    def bounds(self) -> Bounds:
        """Change from A to B, estimated from all pairs."""
        a, b = self._runs(0), self._runs(1)
        pairs = (b[:, :, None] - a[:, None]).reshape(len(a), -1, *a.shape[2:])
        pairs.sort(axis=1)  # NaN last
        allowed, count = self.pairs_allowed, pairs_of(1) * self.blocks**2
        padded = np.concatenate([pairs, np.full_like(pairs[:, :1], np.nan)], axis=1)
        none = pairs.shape[1]  # index of a missing value
        low = np.where(allowed < 0, none, allowed)
        high = np.where(allowed < 0, none, count - 1 - allowed)
        low, high = (
            np.take_along_axis(padded, place[:, None], axis=1)[:, 0] for place in (low, high)
        )
        return Bounds(estimate=_median(pairs, axis=1, is_sorted=True), low=low, high=high)

    @property
    def is_finished(self) -> Bools:
        """True if every metric that a subject has is good, shape ``(gates, subjects)``."""
        return np.asarray((self.good | ~self.measured).all(axis=2))

    def _runs(self, stack: int) -> Floats:
        """Return all runs of a stack, shape ``(gates, runs, subjects, metrics)``."""
        runs = self.logs[:, :, stack]
        return runs.reshape(len(runs), STARTS * runs.shape[1], *runs.shape[3:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Gates after some blocks."""

    margins: Floats
    """Margin of each metric, logarithm."""
    members: tuple[tuple[int, ...], ...]
    """Indices of the cells of every topology."""
    cells: Subjects
    topologies: Subjects
    """Medians of topologies over their cells."""

    @classmethod
    def unmeasured(
        cls, *, gates: int, members: Sequence[Sequence[int]], margins: Sequence[float]
    ) -> Self:
        """Return gates before the first block.

        :param margins: of each metric, as a fraction.
        """
        cells, metrics = sum(map(len, members)), len(margins)
        return cls(
            margins=np.log1p(margins),
            members=tuple(map(tuple, members)),
            cells=Subjects.unmeasured(gates=gates, subjects=cells, metrics=metrics),
            topologies=Subjects.unmeasured(gates=gates, subjects=len(members), metrics=metrics),
        )

    def after(self, block: Floats) -> Self:
        """Return the gates after one more block.

        :param block: shape ``(gates, stacks, starts, cells, metrics)``; NaN if not measured.
        """
        medians = topology_medians(block, self.members)
        decided = self.topologies.measured.any(axis=2) & self.topologies.is_finished
        medians = np.where(decided[:, None, None, :, None], np.nan, medians)
        return type(self)(
            margins=self.margins,
            members=self.members,
            cells=self.cells.after(block, self.margins),
            topologies=self.topologies.after(medians, self.margins),
        )

    def of(self, gates: Bools) -> Self:
        """Return some of the gates."""
        return type(self)(
            margins=self.margins,
            members=self.members,
            cells=self.cells.of(gates),
            topologies=self.topologies.of(gates),
        )

    @property
    def wanted(self) -> Bools:
        """Cells that the next block measures, shape ``(gates, cells)``.

        All cells of a topology are measured until its median is good.
        """
        wanted = ~self._finished_cells
        for topology, cells in enumerate(self.members):
            wanted[:, list(cells)] |= ~self.topologies.is_finished[:, topology, None]
        return wanted

    @property
    def no_go(self) -> Bools:
        """Which gates are NO-GO; takes precedence over :attr:`go`."""
        cells, topologies = (
            part.worse(self.margins).any(axis=(1, 2)) for part in (self.cells, self.topologies)
        )
        no_go: Bools = np.logical_or(cells, topologies)
        return no_go

    @property
    def go(self) -> Bools:
        """Which gates are GO: everything is good."""
        cells = self._finished_cells.all(axis=1)
        go: Bools = np.logical_and(cells, self.topologies.is_finished.all(axis=1))
        return go

    @property
    def _finished_cells(self) -> Bools:
        """Cells whose metrics are all good; a cell without any metric is not finished."""
        finished: Bools = self.cells.is_finished & self.cells.measured.any(axis=2)
        return finished


def topology_medians(block: Floats, members: Sequence[Sequence[int]]) -> Floats:
    """Return the value of a topology in every start: the median over its cells.

    Each cell is taken relative to the mean of its four runs. If fewer than two cells of a topology
    have a metric, the topology does not have it.

    :returns: shape ``(gates, stacks, starts, topologies, metrics)``.
    """
    relative = block - block.mean(axis=(1, 2), keepdims=True)
    medians = []
    for cells in members:
        values = relative[..., list(cells), :]
        enough = (~np.isnan(values)).sum(axis=-2) > 1
        medians.append(np.where(enough, _median(values, axis=-2), np.nan))
    return np.stack(medians, axis=-2)


def forecast(blocks: Ints, bounds: Bounds, margins: Floats) -> Floats:
    """Return the number of blocks that would decide if B is not worse; NaN without a bound.

    The distance of the bound from the estimate shrinks with the square root of the blocks; the
    factor allows for the uncertainty of the estimate.
    """
    distance = GATE_RULE.forecast_factor * (bounds.high - bounds.estimate) / margins
    needed: Floats = np.maximum(blocks + 1, np.ceil(blocks * distance**2))
    return needed


def _median(values: Floats, *, axis: int, is_sorted: bool = False) -> Floats:
    """Return the median of the values along an axis, without NaN; NaN if there are none."""
    ordered = values if is_sorted else np.sort(values, axis=axis)  # NaN last
    count = (~np.isnan(values)).sum(axis=axis, keepdims=True)
    places = np.maximum(0, count - 1) // 2, np.minimum(count // 2, values.shape[axis] - 1)
    low, high = (np.take_along_axis(ordered, place, axis=axis) for place in places)
    middle: Floats = ((low + high) / 2).squeeze(axis=axis)
    return middle
