"""Upgrade gates: the policy that they are judged by, and what they end with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.rules import GATE_RULE
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Word

Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=0)]
MOST_BLOCKS = 64
"""Blocks of a gate at most: 256 starts of every topology."""


class GateVerdict(StrEnum):
    """What a gate says of the candidate."""

    GO = "GO"
    """No gated metric is worse by more than its margin."""
    NO_GO = "NO-GO"
    """A gated metric is worse."""
    NOT_ENOUGH = "NOT ENOUGH EVIDENCE"
    """The budget is spent, and neither is shown."""


class MetricState(StrEnum):
    """What the blocks so far say of one metric."""

    GOOD = "good"
    """It is not worse by more than its margin."""
    WORSE = "worse"
    """It is worse; the gate is NO-GO."""
    UNDECIDED = "undecided"
    """Neither is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """How much worse a candidate may be, and how many blocks may be spent to find out.

    :raises ConfigError: if a metric cannot be gated, or a number is out of range.
    """

    margins: Mapping[str, float] = field(default_factory=lambda: METRICS.gate_margins)
    """How much worse by ratio each gated metric may be, as a fraction, by metric name. Metrics that
    have no margin here are shown, not gated."""
    max_blocks: int = GATE_RULE.max_blocks
    """Blocks of four starts after which the gate ends."""

    def __post_init__(self) -> None:
        if not self.margins:
            raise ConfigError("margins of the gate are empty, expected at least one metric")
        for name, margin in self.margins.items():
            if name not in METRICS.measured:
                known = ", ".join(METRICS.measured)
                raise ConfigError(f"margin of {name!r:.60}: expected a metric among {known}")
            if not 0 < margin <= 1:
                raise ConfigError(
                    f"margin of {name} = {margin:g}, expected a fraction above 0, at most 1"
                )
        if not GATE_RULE.blocks_against <= self.max_blocks <= MOST_BLOCKS:
            raise ConfigError(
                f"blocks of the gate = {self.max_blocks}, expected "
                f"{GATE_RULE.blocks_against} to {MOST_BLOCKS}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEvidence:
    """What the blocks of a gate say of one metric of a cell, or of a topology's median.

    Changes are fractions by ratio, positive is worse, whatever the metric's direction.
    """

    topology: Word
    """Topology id."""
    workload: Word | None
    """Workload id of the cell; None for the topology's median over its cells."""
    metric: Word
    """Name of the metric."""
    state: MetricState
    """Good, worse or undecided."""
    blocks: Count
    """Blocks with a value of each of the four starts."""
    blocks_against: Count
    """Blocks in which both starts of B were worse than both of A by more than the limit."""
    baseline: Positive | None = None
    """Median of A's starts, in the metric's unit; None for a topology, or without a block."""
    candidate: Positive | None = None
    """Median of B's starts."""
    margin: float
    """Change that is allowed."""
    limit: float | None = None
    """Change by which a block counts against B; None without a block."""
    estimate: float | None = None
    """Median change over all pairs of a start of B and a start of A; None without a block."""
    low: float | None = None
    """Lower bound of the change, as sure as :attr:`high`."""
    high: float | None = None
    """Upper bound of the change: the largest pair after those that may be beyond the margin; None
    before there are two blocks."""
    pairs: Count
    """Pairs of a start of B and a start of A."""
    pairs_beyond: Count
    """Pairs that are apart by more than the margin."""
    pairs_allowed: Count | None = None
    """Pairs that may be so in a good metric; None before there are two blocks."""
    forecast_blocks: Count | None = None
    """Blocks that would decide if B is not worse; None where that is not known, or is decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedStack:
    """One of the two stacks, as the running processes showed it."""

    name: Line
    """What the user calls it: an image, an environment, or pins."""
    components: Mapping[Word, Line]
    """Version or arguments by component, e.g. ``vllm`` and ``serve_args``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate ended with; ``gate.json`` holds it."""

    verdict: GateVerdict
    """GO, NO-GO or NOT ENOUGH EVIDENCE."""
    system: Word
    """System that both stacks were measured on."""
    baseline: GatedStack
    """Stack A."""
    candidate: GatedStack
    """Stack B."""
    policy: GatePolicy
    """What it was judged by."""
    faults: tuple[Line, ...] = ()
    """What B breaks that A does not, a sentence each: NO-GO at any speed."""
    evidence: tuple[MetricEvidence, ...]
    """Every gated metric: worse, then undecided, then good; within these the largest change
    first."""
    blocks: Count
    """Blocks that were measured."""
    runs: Count
    """Runs that were measured, of both stacks."""
    wall_s: Annotated[float, Meta(ge=0)]
    """From the first start to the verdict, seconds."""
    gpu_min: Annotated[float, Meta(ge=0)] | None = None
    """GPUs held, in minutes; None on a machine without GPUs."""
    forecast_blocks: Count | None = None
    """Blocks that would decide if B is not worse; None if decided, or not known."""
