"""Upgrade gates: policy, evidence and result."""

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
MAX_BLOCKS = 64
"""Largest number of blocks of a gate: 256 starts of every topology."""


class GateVerdict(StrEnum):
    """Verdict of a gate on the candidate."""

    GO = "GO"
    """No gated metric is worse by more than its margin."""
    NO_GO = "NO-GO"
    """A gated metric is worse by more than its margin, or B has a fault that A has not."""
    NOT_ENOUGH = "NOT ENOUGH EVIDENCE"
    """The budget is used up, and neither GO nor NO-GO is shown."""
    ERROR = "ERROR"
    """The stacks could not be compared: a machine or A failed, or something else differs too."""


class MetricState(StrEnum):
    """State of one metric, according to the blocks so far."""

    GOOD = "good"
    """It is not worse by more than its margin."""
    WORSE = "worse"
    """It is worse by more than its margin; the gate is NO-GO."""
    UNDECIDED = "undecided"
    """Neither good nor worse is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """Margins by which a candidate may be worse, and the maximum number of blocks.

    :raises ConfigError: if a metric cannot be gated, or a number is out of range.
    """

    margins: Mapping[str, float] = field(default_factory=lambda: METRICS.gate_margins)
    """How much worse by ratio each gated metric may be, as a fraction, by metric name. Metrics
    without a margin are shown, not gated."""
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
        if not GATE_RULE.blocks_against <= self.max_blocks <= MAX_BLOCKS:
            raise ConfigError(
                f"blocks of the gate = {self.max_blocks}, expected "
                f"{GATE_RULE.blocks_against} to {MAX_BLOCKS}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEvidence:
    """Evidence for one metric of a cell, or of a topology's median.

    Changes are fractions by ratio; positive is worse, for every direction of the metric.
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
    """Number of blocks with values of all four starts."""
    blocks_against: Count
    """Number of blocks in which both starts of B were worse than both of A by more than the
    limit."""
    baseline: Positive | None = None
    """Median of A's starts, in the metric's unit; None for a topology, or without a block."""
    candidate: Positive | None = None
    """Median of B's starts, likewise."""
    margin: float
    """Largest allowed change."""
    limit: float | None = None
    """Change by which a block counts against B; None without a block."""
    estimate: float | None = None
    """Median change over all pairs of a start of B and a start of A; None without a block."""
    low: float | None = None
    """Lower bound of the change, with the same confidence as :attr:`high`."""
    high: float | None = None
    """Upper bound of the change: the largest pair after those that may be beyond the margin; None
    before there are two blocks."""
    pairs: Count
    """Number of pairs of a start of B and a start of A."""
    pairs_beyond: Count
    """Number of pairs whose change exceeds the margin."""
    pairs_allowed: Count | None = None
    """Largest number of such pairs for a good metric; None before there are two blocks."""
    forecast_blocks: Count | None = None
    """Blocks needed for a decision if B is not worse; None if not known, or decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMetric:
    """A metric that is shown, but not gated."""

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
    """One of the two stacks, as found in the running processes."""

    name: Line
    """Text of the user: pins, an environment, or arguments."""
    components: Mapping[Word, Line]
    """Version or arguments by component, e.g. ``vllm`` and ``serve_args``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapEvidence:
    """Evidence of a block with one component swapped, for a metric that was worse.

    Changes are fractions by ratio, positive is worse.
    """

    component: Word
    """Swapped component."""
    into: Word
    """``baseline``: A with the candidate's component, compared with A; ``candidate``: B with the
    baseline's component, compared with A."""
    topology: Word
    """Topology id."""
    workload: Word
    """Workload id of the cell."""
    metric: Word
    """Name of the metric."""
    estimate: float
    """Median change over the four pairs of a start of each."""
    is_worse: bool
    """True if both starts with the swapped component were worse than both of A by more than the
    limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Result of the search for the component that made the candidate worse."""

    component: Word | None
    """Component; None if no single one does, or it was not found."""
    why: Line
    """Reason, in one sentence."""
    blocks: Count = 0
    """Number of blocks measured for the attribution."""
    evidence: tuple[SwapEvidence, ...] = ()
    """Measurements with swapped components."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Result of a gate; the content of ``gate.json``."""

    verdict: GateVerdict
    """GO, NO-GO, NOT ENOUGH EVIDENCE or ERROR."""
    system: Word
    """System on which both stacks were measured."""
    simulated: bool = False
    """True if it was simulated, without servers."""
    baseline: GatedStack
    """Stack A."""
    candidate: GatedStack
    """Stack B."""
    components: tuple[Word, ...] = ()
    """Components in which the stacks differ; everything else was the same."""
    same_facts: Count = 0
    """Number of versions, flags, settings and hardware facts that were the same on both sides."""
    policy: GatePolicy
    """Policy of the gate."""
    faults: tuple[Line, ...] = ()
    """Faults of B that A does not have, a sentence each: NO-GO at any speed."""
    error: Line | None = None
    """Why the stacks could not be compared; None unless the verdict is ERROR."""
    notes: tuple[Line, ...] = ()
    """Further notes, a sentence each."""
    evidence: tuple[MetricEvidence, ...]
    """Every gated metric: worse, then undecided, then good; within these the largest change
    first."""
    shown: tuple[ShownMetric, ...] = ()
    """Metrics that are shown but not gated."""
    blocks: Count
    """Number of measured blocks."""
    starts: Count = 0
    """Number of starts of servers, with failed ones."""
    runs: Count
    """Number of measured runs, of both stacks."""
    wall_s: Annotated[float, Meta(ge=0)]
    """Time for which nodes were held, seconds, without the pauses of an interrupted gate."""
    gpu_min: Annotated[float, Meta(ge=0)] | None = None
    """GPU-minutes; None on machines without GPUs."""
    forecast_blocks: Count | None = None
    """Blocks needed for a decision if B is not worse; None if decided, or not known."""
    next_steps: tuple[Line, ...] = ()
    """How to reach a decision, a sentence each; empty if the gate is decided."""
    attribution: Attribution | None = None
    """Component that made B worse; None if not requested, or B is not worse."""
