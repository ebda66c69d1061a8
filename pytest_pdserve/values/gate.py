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
    ERROR = "ERROR"
    """The stacks could not be compared: a machine or A failed, or more than the stacks differs."""


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
class ShownMetric:
    """A metric that no verdict depends on."""

    topology: Word
    """Topology id."""
    workload: Word
    """Workload id of the cell."""
    metric: Word
    """Name of the metric."""
    baseline: Positive
    """Median of A's starts, in the metric's unit."""
    candidate: Positive
    """Median of B's starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedStack:
    """One of the two stacks, as the running processes showed it."""

    name: Line
    """What the user calls it: an image, an environment, or pins."""
    components: Mapping[Word, Line]
    """Version or arguments by component, e.g. ``vllm`` and ``serve_args``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapEvidence:
    """What a block with one component swapped says of one metric that was worse.

    Changes are fractions by ratio, positive is worse.
    """

    component: Word
    """Component that was swapped."""
    into: Word
    """``baseline``: A with the candidate's component against A; ``candidate``: B with the
    baseline's component against A."""
    topology: Word
    """Topology id."""
    workload: Word
    """Workload id of the cell."""
    metric: Word
    """Name of the metric."""
    estimate: float
    """Median change over the four pairs of a start of each."""
    is_worse: bool
    """Whether both starts with the swapped component were worse than both of A by more than the
    limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Which component made the candidate worse."""

    component: Word | None
    """The component; None if none does alone, or it was not found out."""
    why: Line
    """One sentence."""
    blocks: Count = 0
    """Blocks that it took."""
    evidence: tuple[SwapEvidence, ...] = ()
    """What was measured with swapped components."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate ended with; ``gate.json`` holds it."""

    verdict: GateVerdict
    """GO, NO-GO, NOT ENOUGH EVIDENCE or ERROR."""
    system: Word
    """System that both stacks were measured on."""
    simulated: bool = False
    """Whether no server ever ran."""
    baseline: GatedStack
    """Stack A."""
    candidate: GatedStack
    """Stack B."""
    components: tuple[Word, ...] = ()
    """Components in which the two differ; all else was the same."""
    same_facts: Count = 0
    """Versions, flags, settings and hardware that were found the same on both sides."""
    policy: GatePolicy
    """What it was judged by."""
    faults: tuple[Line, ...] = ()
    """What B breaks that A does not, a sentence each: NO-GO at any speed."""
    error: Line | None = None
    """Why the stacks could not be compared; None but for an ERROR."""
    notes: tuple[Line, ...] = ()
    """What is to be known beside the verdict, a sentence each."""
    evidence: tuple[MetricEvidence, ...]
    """Every gated metric: worse, then undecided, then good; within these the largest change
    first."""
    shown: tuple[ShownMetric, ...] = ()
    """Metrics that are shown and not gated."""
    blocks: Count
    """Blocks that were measured."""
    starts: Count = 0
    """Starts of servers, failed ones included."""
    runs: Count
    """Runs that were measured, of both stacks."""
    wall_s: Annotated[float, Meta(ge=0)]
    """Time that nodes were held, seconds; the pauses of an interrupted gate are not in it."""
    gpu_min: Annotated[float, Meta(ge=0)] | None = None
    """GPUs held, in minutes; None on a machine without GPUs."""
    forecast_blocks: Count | None = None
    """Blocks that would decide if B is not worse; None if decided, or not known."""
    next_steps: tuple[Line, ...] = ()
    """What would bring an answer, a sentence each; empty if the gate is decided."""
    attribution: Attribution | None = None
    """Which component made B worse; None where that was not asked, or B is not worse."""
