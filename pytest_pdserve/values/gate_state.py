"""How far an upgrade gate is: what it compares, and every start that it has made."""

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
"""Stacks of the four places of a block; blocks take turns, so that neither is always first."""


def order_of(block: int) -> tuple[Side, ...]:
    """Return which stack starts in each place of a block, counted from 0."""
    return ORDERS[block % len(ORDERS)]


class Outcome(StrEnum):
    """How a start of servers ended."""

    OK = "ok"
    """Every run on it is valid."""
    FAULT = "fault"
    """The servers did not start, ended, failed requests, or served wrong tokens."""
    TROUBLE = "trouble"
    """Something else disturbed it: the client, a port, another user of the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStep:
    """One start of one topology with one stack."""

    block: Count
    """Counted from 0."""
    place: Annotated[int, Meta(ge=0, le=3)]
    """Place in the block."""
    side: Side
    """Whose stack it is of."""
    topology: Word
    """Topology id."""
    attempt: Annotated[int, Meta(ge=1)] = 1
    """The same start may be tried again."""
    control: bool = False
    """Whether it is a start of A beside one of B that failed."""
    swap: str = ""
    """Empty for the gate itself; else the swap that it belongs to, e.g. ``baseline+nixl``."""

    @property
    def repeat(self) -> int:
        """Place of this start among those of its stack: starts of one number get one load."""
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
    """Which it was."""
    folder: Word
    """Folder of its records and logs, in that of the gate."""
    outcome: Outcome
    """How it ended."""
    why: Line = ""
    """Why it is not OK, in one sentence; empty if it is."""
    records: tuple[Word, ...] = ()
    """Files of its records, relative to the gate's folder."""
    answers: tuple[str, ...] = ()
    """Greedy answers to the same prompts at every start; empty where none were asked."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions that its processes showed."""
    seconds: Seconds = 0.0
    """How long it took, its end included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCells:
    """Loads that are measured on one topology."""

    topology: Word
    """Topology id."""
    workloads: tuple[Word, ...]
    """Workload ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDefinition:
    """What a gate compares, on what, and by which rule: it must not change until it ends."""

    system: Word
    """System."""
    settings: Word
    """Digest of the system file, as far as it changes a measurement."""
    baseline: Line
    """Text of stack A."""
    baseline_digest: Word
    """What it stood for."""
    candidate: Line
    """Text of stack B."""
    candidate_digest: Word
    """What it stood for."""
    cells: tuple[GateCells, ...]
    """What is measured, in order."""
    policy: GatePolicy
    """What it is judged by."""
    budget: GateBudget
    """What it may spend."""
    attribute: bool = False
    """Whether the component that made B worse is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState:
    """A gate so far; ``gate-state.json`` of its folder."""

    definition: GateDefinition
    """What it compares."""
    began_at: Utc
    """When it began."""
    sittings: Annotated[int, Meta(ge=1)] = 1
    """Times that it acquired nodes: once, and once after each interruption."""
    starts: tuple[GateStart, ...] = ()
    """Every start that has ended, in order."""
    packages: tuple[Line, ...] = ()
    """Packages beside the components that differ between both environments, and their versions."""
    held_s: Seconds = 0.0
    """Seconds that nodes were held."""
    gpus: Count = 0
    """GPUs that were held."""
