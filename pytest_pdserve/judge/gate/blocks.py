"""Blocks of runs, and what the rule says of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricEvidence
from pytest_pdserve.values.gate import MetricState

Start = Mapping[Key, Mapping[str, float]]
"""What one fresh start of a stack showed: value by metric, in the metric's unit, by cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Two fresh starts of each stack, interleaved: A B B A or B A A B.

    Cells that are finished, and metrics that a run does not have, are absent.
    """

    baseline: tuple[Start, Start]
    """The starts of A."""
    candidate: tuple[Start, Start]
    """The starts of B."""

    @property
    def starts(self) -> tuple[Start, ...]:
        """All four."""
        return (*self.baseline, *self.candidate)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateJudgement:
    """What the blocks so far say of the candidate."""

    verdict: GateVerdict | None
    """None while more blocks can tell."""
    blocks: int
    """Blocks that it was judged by."""
    evidence: tuple[MetricEvidence, ...]
    """Every gated metric: worse, then undecided, then good; within these the largest change
    first."""
    cells: tuple[Key, ...]
    """Cells that the next block measures; none after the verdict."""
    without_metrics: tuple[Key, ...] = ()
    """Cells of which no run had a gated metric: nothing is known of them, and the gate is no GO."""

    @property
    def noisiest(self) -> MetricEvidence | None:
        """The undecided metric that needs the most blocks; None if a forecast of none is known."""
        waiting = [each for each in self.evidence if each.forecast_blocks is not None]
        return max(waiting, key=lambda each: each.forecast_blocks or 0, default=None)

    @property
    def forecast_blocks(self) -> int | None:
        """Blocks that would decide everything if B is not worse; None if decided, or not known."""
        if self.verdict in (GateVerdict.GO, GateVerdict.NO_GO):
            return None
        if not all(self._is_forecast(each) for each in self.evidence) or self.without_metrics:
            return None
        return self.noisiest.forecast_blocks if self.noisiest else None

    @staticmethod
    def _is_forecast(each: MetricEvidence) -> bool:
        return each.state is not MetricState.UNDECIDED or each.forecast_blocks is not None
