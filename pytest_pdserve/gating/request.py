"""The request for a gate: two stacks, a system, cells, margins and a budget."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.gating.sides import GateSide
from pytest_pdserve.gating.sides import parse_side
from pytest_pdserve.gating.sides import swapped_text
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate_budget import GateBudget
from pytest_pdserve.values.gate_state import GateCells
from pytest_pdserve.values.gate_state import GateDefinition
from pytest_pdserve.values.stack import components
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """Everything that defines a gate."""

    system: System
    """System that both stacks are measured on; its model path is resolved."""
    baseline: GateSide
    """Stack A, not built."""
    candidate: GateSide
    """Stack B, not built."""
    cells: tuple[GateCells, ...]
    """Cells to measure, by topology, in order."""
    policy: GatePolicy
    budget: GateBudget
    """Maximum blocks, time or GPU time."""
    attribute: bool = False
    """True if the component that made B worse is searched for."""

    @property
    def components(self) -> tuple[str, ...]:
        """Components that differ between the stacks."""
        return components(self.baseline.stack, self.candidate.stack)

    @property
    def rule(self) -> GatePolicy:
        """Policy with the margins, and the blocks of the budget."""
        return replace(self.policy, max_blocks=self.budget.blocks)

    @property
    def loads(self) -> Mapping[str, Workload]:
        """Every load of the sweep by its id."""
        return {load.id: load for load in self.system.sweep.workloads()}

    @property
    def definition(self) -> GateDefinition:
        """Everything that must not change until the gate ends."""
        a, b = self.baseline.stack, self.candidate.stack
        return GateDefinition(
            system=self.system.name,
            settings=fingerprint({}, self.system),
            baseline=a.text,
            baseline_digest=a.digest,
            candidate=b.text,
            candidate_digest=b.digest,
            cells=self.cells,
            policy=self.policy,
            budget=self.budget,
            attribute=self.attribute,
        )


def make_request(
    system: System,
    *,
    stacks: tuple[str, str],
    topologies: Sequence[Topology],
    patterns: Sequence[str] = (),
    policy: GatePolicy,
    budget: GateBudget,
    attribute: bool = False,
) -> GateRequest:
    """Return the validated request for a gate.

    :param stacks: texts of A and B.
    :param patterns: patterns of cells; empty for every cell of the sweep.
    :raises ConfigError: if the system cannot be gated, or a stack or pattern cannot be used.
    """
    backend = backend_of(system)
    if not backend.starts_servers:
        raise ConfigError(
            f"system {system.name!r} is of kind {backend.name!r}: its servers are already running, "
            "and a gate starts both stacks itself; name a system whose servers pdserve starts"
        )
    request = GateRequest(
        system=system,
        baseline=parse_side("A", stacks[0], system),
        candidate=parse_side("B", stacks[1], system),
        cells=choose_cells(system, backend, topologies, patterns),
        policy=policy,
        budget=budget,
        attribute=attribute,
    )
    if attribute and len(request.components) > 1:  # before anything is measured
        for component in request.components:
            swapped_text(request.baseline.stack, request.candidate.stack, component)
    return request


def choose_cells(
    system: System, backend: Backend, topologies: Sequence[Topology], patterns: Sequence[str]
) -> tuple[GateCells, ...]:
    """Return the cells whose name matches a pattern.

    A pattern matches the load, or ``topology/load``, with ``*`` and ``?`` as in a shell.

    :raises ConfigError: if one matches no cell.
    """
    loads = [load.id for load in system.sweep.workloads()]
    names = {topology.id: loads for topology in topologies}
    for topology in topologies:
        backend.serves(topology, system)
    unused = [p for p in patterns if not any(_matches(p, t, n) for t in names for n in loads)]
    if unused:
        raise ConfigError(
            f"--cells {unused[0]!r:.80} matches no cell; the loads of system {system.name!r} are "
            + ", ".join(loads)
        )
    chosen = {
        topology: tuple(n for n in loads if not patterns or _matches_any(patterns, topology, n))
        for topology in names
    }
    return tuple(GateCells(topology=name, workloads=w) for name, w in chosen.items() if w)


def _matches_any(patterns: Sequence[str], topology: str, load: str) -> bool:
    return any(_matches(pattern, topology, load) for pattern in patterns)


def _matches(pattern: str, topology: str, load: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (load, f"{topology}/{load}"))


def changed_system(stored: GateDefinition, system: System) -> str | None:
    """Return why a gate cannot be continued with *system*; None if it can."""
    if stored.system != system.name:
        return f"it was begun on system {stored.system!r}, not {system.name!r}"
    if stored.settings != fingerprint({}, system):
        return f"{system.source} has changed since"
    return None


def changed_since(stored: GateDefinition, now: GateDefinition) -> str | None:
    """Return why a gate cannot be continued; None if it can. Budgets may change."""
    for name in ("baseline", "candidate"):
        before, after = getattr(stored, name), getattr(now, name)
        if before != after:
            return f"its {name} is {before!r}, not {after!r}"
        if getattr(stored, f"{name}_digest") != getattr(now, f"{name}_digest"):
            return f"its {name} {before!r} now has other versions"
    if stored.cells != now.cells:
        return "its topologies or cells have changed"
    if stored.policy.margins != now.policy.margins:
        return "its margins have changed"
    return None
