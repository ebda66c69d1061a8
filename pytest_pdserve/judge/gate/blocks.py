"""Blocks of runs, and the gate rule's judgement on them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricEvidence
from pytest_pdserve.values.gate import MetricState

Start = Mapping[Key, Mapping[str, float]]
"""Values of one fresh start of a stack: by cell and by metric, in the metric's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Two fresh starts of each stack, interleaved: A B B A or B A A B.

    Finished cells, and metrics that a run does not have, are absent.
    """

    baseline: tuple[Start, Start]
    """Starts of A."""
    candidate: tuple[Start, Start]
    """Starts of B."""

    @property
    def starts(self) -> tuple[Start, ...]:
        """All four starts."""
        return (*self.baseline, *self.candidate)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateJudgement:
    """The judgement on the candidate after some blocks."""

    verdict: GateVerdict | None
    """None while more blocks can decide."""
    blocks: int
    """Number of blocks that it is based on."""
    evidence: tuple[MetricEvidence, ...]
    """Every gated metric: worse, then undecided, then good; within these the largest change
    first."""
    cells: tuple[Key, ...]
    """Cells that the next block measures; none after the verdict."""
    without_metrics: tuple[Key, ...] = ()
    """Cells of which no run had a gated metric, so that the gate cannot be GO."""

    @property
    def noisiest(self) -> MetricEvidence | None:
        """The undecided metric that needs the most blocks; None if no metric has a forecast."""
        with_forecast = [m for m in self.evidence if m.forecast_blocks is not None]
        return max(with_forecast, key=lambda metric: metric.forecast_blocks or 0, default=None)

    @property
    def forecast_blocks(self) -> int | None:
        """Blocks that would decide all metrics if B is not worse; None if decided, or unknown."""
        if self.verdict in (GateVerdict.GO, GateVerdict.NO_GO):
            return None
        if not all(self._has_forecast(metric) for metric in self.evidence) or self.without_metrics:
            return None
        return self.noisiest.forecast_blocks if self.noisiest else None

    @staticmethod
    def _has_forecast(metric: MetricEvidence) -> bool:
        return metric.state is not MetricState.UNDECIDED or metric.forecast_blocks is not None
