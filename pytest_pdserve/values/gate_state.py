"""State of an upgrade gate: its definition, and every start so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from enum import StrEnum
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.gate import Count
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate_budget import GateBudget
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word

Side = Literal["A", "B"]
"""A is the baseline, B the candidate."""
Seconds = Annotated[float, Meta(ge=0)]
ORDERS: tuple[tuple[Side, ...], ...] = (("A", "B", "B", "A"), ("B", "A", "A", "B"))
"""Stacks of the four starts of a block; blocks alternate, so that neither is always first."""


def order_of(block: int) -> tuple[Side, ...]:
    """Return the stacks of the four starts of a block, which is counted from 0."""
    return ORDERS[block % len(ORDERS)]


class Outcome(StrEnum):
    """Outcome of a start of servers."""

    OK = "ok"
    """All of its runs are valid."""
    FAULT = "fault"
    """The servers did not start, ended, failed requests, or generated wrong tokens."""
    TROUBLE = "trouble"
    """Something else failed: the client, a port, another user of the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStep:
    """A start of one topology with one stack."""

    block: Count
    """Number of the block, from 0."""
    place: Annotated[int, Meta(ge=0, le=3)]
    """Position in the block, from 0."""
    side: Side
    """Stack that is started."""
    topology: Word
    """Topology id."""
    attempt: Annotated[int, Meta(ge=1)] = 1
    """Number of the attempt, from 1."""
    control: bool = False
    """True if it is a start of A as a control for a failed one of B."""
    swap: str = ""
    """Swap that it belongs to, e.g. ``baseline+nixl``; empty for the gate itself."""

    @property
    def repeat(self) -> int:
        """Number of this start among those of its stack; equal numbers get the same prompts."""
        earlier = sum(side == self.side for side in order_of(self.block)[: self.place])
        return 2 * self.block + earlier

    @property
    def name(self) -> str:
        """Name of its folder, e.g. ``b01-2B-1p3d``."""
        parts = [f"b{self.block + 1:02}-{self.place + 1}{self.side}", self.topology]
        parts += [f"try{self.attempt}"] if self.attempt > 1 else []
        parts += ["control"] if self.control else []
        return "-".join([*([self.swap] if self.swap else []), *parts])


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStart:
    """A start that has ended."""

    step: GateStep
    """Step of the gate."""
    folder: Word
    """Folder of its records and logs, in the gate's folder."""
    outcome: Outcome
    """Outcome."""
    why: Line = ""
    """Why the outcome is not OK, in one sentence; empty if it is."""
    records: tuple[Word, ...] = ()
    """Files of its records, relative to the gate's folder."""
    answers: tuple[str, ...] = ()
    """Greedy answers to the same prompts at every start; empty if not requested."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions in its processes."""
    seconds: Seconds = 0.0
    """Duration, with stopping the servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCells:
    """Workloads that are measured on one topology."""

    topology: Word
    """Topology id."""
    workloads: tuple[Word, ...]
    """Workload ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDefinition:
    """Definition of a gate's comparison; must not change until the gate ends."""

    system: Word
    """Name of the system."""
    settings: Word
    """Digest of the settings in the system file that change a measurement."""
    baseline: Line
    """Text of stack A."""
    baseline_digest: Word
    """Digest of stack A."""
    candidate: Line
    """Text of stack B."""
    candidate_digest: Word
    """Digest of stack B."""
    cells: tuple[GateCells, ...]
    """Cells to measure, in order."""
    policy: GatePolicy
    """Policy."""
    budget: GateBudget
    """Budget."""
    attribute: bool = False
    """True if the component that made B worse is searched for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState:
    """State of a gate; ``gate-state.json`` in its folder."""

    definition: GateDefinition
    """Definition."""
    began_at: Utc
    """Time of its begin."""
    sittings: Annotated[int, Meta(ge=1)] = 1
    """How often it acquired nodes: once, and again after each interruption."""
    starts: tuple[GateStart, ...] = ()
    """Every start that has ended, in order."""
    packages: tuple[Line, ...] = ()
    """Other packages that differ between the environments, with their versions."""
    held_s: Seconds = 0.0
    """Seconds for which nodes were held."""
    gpus: Count = 0
    """Number of GPUs that were held."""
