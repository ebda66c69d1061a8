"""Result of ``pdserve compare``: two sides, their differences, and every metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_pdserve.values.measurements import Evidence

Says = Literal["worse", "better", "equal", "unclear", "differs", "not compared"]
"""B compared with A, for one metric: ``unclear`` if the interval includes 0, ``differs`` for
different counts, ``equal`` for the same value, or less than 0.05 % between latencies or
throughputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSide:
    """One side of a comparison."""

    name: str
    """Argument of the command."""
    what: str
    """What the argument refers to, e.g. ``1 session``."""
    evidence: Evidence
    """Unit of evidence, which counts once."""
    counted: int
    """Number of starts, nights or readings, over all compared cells."""
    runs: int
    """Number of runs of all its cells, including invalid ones."""
    unproven: int
    """Number of runs with unproven checks; ``pdserve show`` lists them."""
    first_at: str | None
    """Start time of its first run, UTC; None if not known."""
    last_at: str | None
    """Start time of its last run; None if not known."""
    notes: tuple[str, ...]
    """What is mixed, invalid or left out, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactDifference:
    """A fact that differs between both sides."""

    group: str
    """Group of the fact, e.g. ``versions``."""
    name: str
    """Name of the fact, e.g. ``vllm``."""
    a: tuple[str, ...]
    """Values of A, sorted; empty if not known."""
    b: tuple[str, ...]
    """Values of B, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedValue:
    """One metric of one side."""

    value: float | None
    """Geometric mean of starts, nights or readings, in the metric's unit; the median if one is 0;
    None if it must not be compared."""
    counted: int
    """Number of starts, nights or readings."""
    void: bool = False
    """True if a run has a voided value."""
    why: str = ""
    """Why there is no value to compare; empty if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMetric:
    """One metric of one cell on both sides."""

    metric: str
    """Name of the metric."""
    unit: str
    """Unit of the values."""
    better: Literal["lower", "higher", "equal"]
    """Direction; ``equal`` for a count that must not change."""
    judged: bool
    """True if it is one of the metrics by which nights are judged."""
    a: ComparedValue
    b: ComparedValue
    change: float | None
    """B / A - 1: 0.05 is 5 % more."""
    worse: float | None
    """How much worse B is, as a fraction by ratio: half the throughput and twice the latency are 1;
    below 0 if it is better; None for counts."""
    interval: tuple[float, float] | None
    """Interval of :attr:`change`; None with fewer than two starts or nights on a side, or without
    any spread."""
    says: Says
    """Result for this metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCell:
    """One cell on both sides."""

    topologies: tuple[str, str]
    """Topology ids of A and B."""
    workloads: tuple[str, str]
    """Workload ids of A and B."""
    metrics: tuple[ComparedMetric, ...]
    """Metrics of either side; empty if a side has no valid run."""
    why: str = ""
    """Why the cell is not compared; empty if it is."""

    @property
    def name(self) -> str:
        """Topology and workload, for messages."""
        return " ".join(a if a == b else f"{a} | {b}" for a, b in (self.topologies, self.workloads))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A comparison of two sides."""

    a: ComparedSide
    b: ComparedSide
    unlike: tuple[str, ...]
    """How the loads differ, a sentence each: then servers cannot be compared."""
    unsure: tuple[str, ...]
    """Unknown properties of the loads, which may therefore differ."""
    differences: tuple[FactDifference, ...]
    """Differences other than the load."""
    not_known: tuple[str, ...]
    """Groups of facts that a side does not record, e.g. ``hardware of A``."""
    same_facts: int
    """Number of facts that are the same on both sides."""
    method: str
    """How values and intervals are computed, as text."""
    cells: tuple[ComparedCell, ...]
    """Cells of both sides, matched by topology and workload."""
    only_a: tuple[str, ...]
    """Cells that only A has."""
    only_b: tuple[str, ...]
    """Cells that only B has."""
    fail_worse: float | None
    """Fraction by which B may be worse (``--fail-worse``); None if not given."""
    too_much: tuple[str, ...]
    """Judged metrics that are worse by more than that, a sentence each, worst first."""
    exit_code: int
    """Exit code of the command."""
