"""What ``pdserve compare`` says: two sides, what differs between them, metric by metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_pdserve.values.measurements import Evidence

Says = Literal["worse", "better", "equal", "unclear", "differs", "not compared"]
"""What B is, of one metric: ``unclear`` where the interval includes no change, ``differs`` for a
count that is another, ``equal`` for the same value, or less than 0.05 % between latencies or
throughputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSide:
    """One of the two sides."""

    name: str
    """As it was asked for."""
    what: str
    """What it was found to be."""
    evidence: Evidence
    """What counts once."""
    counted: int
    """Starts, nights or readings that count, over all cells that are compared."""
    runs: int
    """Runs of all its cells, the invalid ones too."""
    unproven: int
    """Runs of which something could not be checked; ``pdserve show`` says what."""
    first_at: str | None
    """When its first run began, UTC; None where nothing says it."""
    last_at: str | None
    """When its last run began."""
    notes: tuple[str, ...]
    """What is mixed in it, invalid, or was left out, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactDifference:
    """A fact that is not the same on both sides."""

    group: str
    """E.g. ``versions``."""
    name: str
    """E.g. ``vllm``."""
    a: tuple[str, ...]
    """Values of A, sorted; empty where it is not known."""
    b: tuple[str, ...]
    """Values of B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedValue:
    """One metric of one side."""

    value: float | None
    """In the metric's unit: the geometric mean over what counts; the median where that does not
    exist, as with a 0; None if it must not be compared."""
    counted: int
    """Starts, nights or readings behind it."""
    void: bool = False
    """Whether there is one that must not be judged."""
    why: str = ""
    """Why there is no value to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMetric:
    """One metric of one cell, side by side."""

    metric: str
    """Metric."""
    unit: str
    """Unit of the values."""
    better: Literal["lower", "higher", "equal"]
    """Direction; ``equal`` is a count that must not change."""
    judged: bool
    """Whether nights are judged by it."""
    a: ComparedValue
    b: ComparedValue
    change: float | None
    """B over A, less 1: 0.05 is 5 % more."""
    worse: float | None
    """How much worse B is, as a fraction by ratio: half the throughput and twice the latency are 1;
    below 0 where it is better. None of counts."""
    interval: tuple[float, float] | None
    """Interval of :attr:`change`; None with fewer than two starts or nights on a side, or without
    any spread."""
    says: Says
    """What B is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCell:
    """One cell, side by side."""

    topologies: tuple[str, str]
    """Topology of A and of B."""
    workloads: tuple[str, str]
    """Workload id of A and of B."""
    metrics: tuple[ComparedMetric, ...]
    """Metrics that a side has; empty where a side has no valid run."""
    why: str = ""
    """Why nothing of it is compared."""

    @property
    def name(self) -> str:
        """Topology and workload, for messages."""
        return " ".join(a if a == b else f"{a} | {b}" for a, b in (self.topologies, self.workloads))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides, side by side."""

    a: ComparedSide
    b: ComparedSide
    unlike: tuple[str, ...]
    """How the loads differ, a sentence each: what follows is then no comparison of servers."""
    unsure: tuple[str, ...]
    """What is not known of the loads, so that they may differ."""
    differences: tuple[FactDifference, ...]
    """What differs beside the load."""
    not_known: tuple[str, ...]
    """What one side does not say at all, e.g. ``hardware of A``."""
    same_facts: int
    """Facts that are the same on both sides."""
    method: str
    """How values and intervals are made."""
    cells: tuple[ComparedCell, ...]
    """Cells of both, matched by topology and workload."""
    only_a: tuple[str, ...]
    """Cells that only A has."""
    only_b: tuple[str, ...]
    """Cells that only B has."""
    fail_worse: float | None
    """Fraction by which B may be worse; None where that was not asked."""
    too_much: tuple[str, ...]
    """Judged metrics that are worse by more than that, a sentence each, the worst first."""
    exit_code: int
    """What the command ends with."""
