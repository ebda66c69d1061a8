"""What blocks say of many metrics, in one gate or in thousands of simulated ones. Pure.

Values are logarithms, signed so that positive is worse. Arrays of runs have the axes ``(gates,
blocks, stacks, starts, subjects, metrics)``: stack 0 is A, the baseline, 1 is B, the candidate; a
block has two starts of each. Subjects are cells, or topologies. NaN is a value that does not exist.
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
    """How much worse B is; each of shape ``(gates, subjects, metrics)``, NaN where not known."""

    estimate: Floats
    """Median of all pairs (Hodges and Lehmann 1963)."""
    low: Floats
    """Smallest pair after as many as may be beyond the margin."""
    high: Floats
    """Largest pair after those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """Cells, or topologies, of gates after some blocks."""

    logs: Floats
    """Every run; a metric of a block that lacks one of its four runs is NaN in all."""
    known: Bools
    """Whether any run had the metric, shape ``(gates, subjects, metrics)``."""
    good: Bools
    """Whether the metric has been good after any block; the same shape."""

    @classmethod
    def unmeasured(cls, *, gates: int, subjects: int, metrics: int) -> Self:
        """Return subjects before the first block."""
        nothing = np.zeros((gates, subjects, metrics), dtype=bool)
        logs = np.empty((gates, 0, STACKS, STARTS, subjects, metrics))
        return cls(logs=logs, known=nothing, good=nothing)

    def after(self, block: Floats, margins: Floats) -> Self:
        """Return the subjects after one more block.

        :param block: shape ``(gates, stacks, starts, subjects, metrics)``.
        :param margins: logarithm by metric.
        """
        lacking = np.isnan(block)
        whole = np.where(lacking.any(axis=(1, 2), keepdims=True), np.nan, block)
        grown = type(self)(
            logs=np.concatenate([self.logs, whole[:, None]], axis=1),
            known=self.known | ~lacking.all(axis=(1, 2)),
            good=self.good,
        )
        enough = grown.pairs_beyond(margins) <= grown.pairs_allowed
        return type(self)(logs=grown.logs, known=grown.known, good=grown.good | enough)

    def of(self, gates: Bools) -> Self:
        """Return the same of some of the gates."""
        return type(self)(logs=self.logs[gates], known=self.known[gates], good=self.good[gates])

    @property
    def blocks(self) -> Ints:
        """Whole blocks, shape ``(gates, subjects, metrics)`` as of all that follow."""
        whole: Ints = (~np.isnan(self.logs[:, :, 0, 0])).sum(axis=1)
        return whole

    @property
    def spread(self) -> Floats:
        """Standard deviation of a run: the subject's own, or at least the metric's typical one.

        It holds no difference between A and B.
        """
        apart = np.abs(self.logs[:, :, :, 0] - self.logs[:, :, :, 1])
        apart = apart.reshape(len(apart), STACKS * apart.shape[1], *apart.shape[3:])
        own = GATE_RULE.spread_factor * _median(apart, axis=1)
        count = np.maximum(1, STACKS * self.blocks)
        mean_square = np.nansum(apart**2, axis=1) / count
        root = np.where(np.isnan(own), np.nan, np.sqrt(mean_square / 2))
        typical: Floats = _median(root, axis=1)[:, None]
        widest: Floats = np.maximum(own, typical)
        return widest

    def limit(self, margins: Floats) -> Floats:
        """Return the difference by which a block counts against B, NaN without a block."""
        wide: Floats = np.maximum(GATE_RULE.margin_share * margins, GATE_RULE.spreads * self.spread)
        return wide

    def blocks_against(self, margins: Floats) -> Ints:
        """Return the blocks in which both runs of B are worse than both of A by the limit."""
        a, b = self.logs[:, :, 0], self.logs[:, :, 1]
        against: Ints = (b.min(axis=2) - a.max(axis=2) > self.limit(margins)[:, None]).sum(axis=1)
        return against

    def worse(self, margins: Floats) -> Bools:
        """Return which metrics make the gate NO-GO."""
        table = np.array([needed_against(blocks) for blocks in range(self.logs.shape[1] + 1)])
        worse: Bools = self.blocks_against(margins) >= table[self.blocks]
        return worse

    def pairs_beyond(self, margins: Floats) -> Ints:
        """Return the pairs of a run of B and a run of A that are apart by more than the margin."""
        a, b = self._runs(0), self._runs(1)
        beyond: Ints = np.zeros((len(a), *a.shape[2:]), dtype=np.int64)
        for run in range(b.shape[1]):
            beyond += (b[:, run, None] - a > margins).sum(axis=1)
        return beyond

    @property
    def pairs_allowed(self) -> Ints:
        """Pairs that may be beyond the margin in a good metric; -1 before there are blocks."""
        table = np.array([allowed_pairs(blocks) for blocks in range(self.logs.shape[1] + 1)])
        allowed: Ints = table[self.blocks]
        return allowed

    @property
    def bounds(self) -> Bounds:
        """How much worse B is, by all pairs."""
        a, b = self._runs(0), self._runs(1)
        pairs = (b[:, :, None] - a[:, None]).reshape(len(a), -1, *a.shape[2:])
        pairs.sort(axis=1)  # NaN last
        allowed, count = self.pairs_allowed, pairs_of(1) * self.blocks**2
        padded = np.concatenate([pairs, np.full_like(pairs[:, :1], np.nan)], axis=1)
        none = pairs.shape[1]  # place of a value that does not exist
        low = np.where(allowed < 0, none, allowed)
        high = np.where(allowed < 0, none, count - 1 - allowed)
        low, high = (
            np.take_along_axis(padded, place[:, None], axis=1)[:, 0] for place in (low, high)
        )
        return Bounds(estimate=_median(pairs, axis=1, is_sorted=True), low=low, high=high)

    @property
    def is_finished(self) -> Bools:
        """Whether every metric that a subject has is good, shape ``(gates, subjects)``."""
        return np.asarray((self.good | ~self.known).all(axis=2))

    def _runs(self, stack: int) -> Floats:
        """All runs of a stack, shape ``(gates, runs, subjects, metrics)``."""
        runs = self.logs[:, :, stack]
        return runs.reshape(len(runs), STARTS * runs.shape[1], *runs.shape[3:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Gates after some blocks."""

    margins: Floats
    """Margin of each metric, logarithm."""
    members: tuple[tuple[int, ...], ...]
    """Places of the cells of every topology."""
    cells: Subjects
    """Cells."""
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

        :param block: shape ``(gates, stacks, starts, cells, metrics)``; what was not measured is
            NaN.
        """
        medians = topology_medians(block, self.members)
        decided = self.topologies.known.any(axis=2) & self.topologies.is_finished
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

        A topology is measured whole until its median is good.
        """
        wanted = ~self._finished_cells
        for topology, cells in enumerate(self.members):
            wanted[:, list(cells)] |= ~self.topologies.is_finished[:, topology, None]
        return wanted

    @property
    def no_go(self) -> Bools:
        """Which gates are NO-GO; to be asked before :attr:`go`."""
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
        """Cells whose metrics are all good; one without any metric never is."""
        finished: Bools = self.cells.is_finished & self.cells.known.any(axis=2)
        return finished


def topology_medians(block: Floats, members: Sequence[Sequence[int]]) -> Floats:
    """Return what a topology shows in every start: the median over its cells.

    Each cell is taken relative to the mean of its four runs. A topology of which fewer than two
    cells have a metric has none.

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
    """Return the blocks that would decide if B is not worse; NaN where no bound is known.

    The bound comes nearer to the estimate with the root of the blocks, and the estimate itself is
    not sure.
    """
    away = GATE_RULE.forecast_factor * (bounds.high - bounds.estimate) / margins
    needed: Floats = np.maximum(blocks + 1, np.ceil(blocks * away**2))
    return needed


def _median(values: Floats, *, axis: int, is_sorted: bool = False) -> Floats:
    """Return the median along an axis of the values that exist; NaN of none."""
    ordered = values if is_sorted else np.sort(values, axis=axis)  # NaN last
    count = (~np.isnan(values)).sum(axis=axis, keepdims=True)
    places = np.maximum(0, count - 1) // 2, np.minimum(count // 2, values.shape[axis] - 1)
    low, high = (np.take_along_axis(ordered, place, axis=axis) for place in places)
    middle: Floats = ((low + high) / 2).squeeze(axis=axis)
    return middle
