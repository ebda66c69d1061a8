"""Checks that the node pairs of a topology are fast enough, before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.judge.transfer import below_floor
from pytest_pdserve.judge.transfer import node_lines
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.placement import rotated
from pytest_pdserve.plan.transfer import preflight_case
from pytest_pdserve.plan.transfer import repeat_command
from pytest_pdserve.plan.transfer import shape_of
from pytest_pdserve.plan.transfer import topology_pairs
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.transfer import write_transfers
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import make_model
from pytest_pdserve.transfer.measuring import TransferPlan
from pytest_pdserve.transfer.measuring import measure_transfers
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import TransferError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBaseline

REPEATS = 5
"""How often a pair is measured; takes seconds in total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The minimum rate that every pair must reach."""

    gb_s: float
    """In 1e9 bytes per second."""
    source: str
    """Origin of the number, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """Measures and checks the node pairs of topologies in one session."""

    allocation: Allocation
    system: System
    baseline: TransferBaseline | None
    """Reference of transfers, used if the system file gives no floor."""
    store: RunStore
    """Storage of records."""
    fingerprint: str
    """Digest of hardware and system file."""
    progress: Progress

    def check(self, topology: Topology, *, rotation: int = 0) -> tuple[PairFigures, ...]:
        """Measure the pairs of *topology* with the KV cache of the longest prompt.

        A pair below the floor is measured once more, so that one disturbance does not count as a
        slow node.

        :param rotation: places by which nodes are rotated before instances are put on them.
        :returns: the measurements; empty if the topology moves no KV cache between nodes.
        :raises ConfigError: if there is neither a floor nor a baseline.
        :raises TransferError: naming the slow pairs and their nodes.
        """
        system = self.system
        plan = _plan(self.allocation, topology, system, rotation)
        if not plan.pairs:
            return ()
        if system.transfer.floor_gb_s is None and self.baseline is None:
            raise ConfigError(_no_floor(system))
        measured = self.measure(plan, topology.id)
        floor = self._floor(measured[0])
        slow = below_floor(measured, floor.gb_s, source=floor.source)
        if slow:
            again = self.measure(replace(plan, pairs=(*slow,)), f"{topology.id}-again")
            slow = below_floor(again, floor.gb_s, source=floor.source)
        if slow:
            raise TransferError(_slow_text(plan.pairs, slow, system))
        slowest = min(figure.gb_s for pair in measured for figure in pair.figures)
        self.progress(
            f"preflight: {plan.shapes[0].id} moves at {slowest:.3g} GB/s or more (pairs: "
            f"{len(measured)}), expected at least {floor.gb_s:.3g} GB/s"
        )
        return measured

    def _floor(self, one: PairFigures) -> Floor:
        floor = floor_of(self.system, self.baseline, one)
        if floor is None:
            raise ConfigError(_no_floor(self.system))
        return floor

    def measure(self, plan: TransferPlan, label: str) -> tuple[PairFigures, ...]:
        """Measure the transfers of *plan*, and write their records.

        :param label: beginning of the records' names.
        :raises TransferError: if a transfer fails.
        """
        measured = measure_transfers(
            self.allocation,
            self.system,
            plan,
            folder=self.store.folder,
            progress=self.progress,
            label=label,
        )
        write_transfers(
            measured, self.store, system=self.system, fingerprint=self.fingerprint, label=label
        )
        return measured


def placed_pairs(
    allocation: Allocation, topology: Topology, system: System, rotation: int
) -> tuple[Pair, ...]:
    """Return the pairs of nodes between which a topology moves KV caches.

    :param rotation: places by which nodes are rotated before instances are put on them.
    """
    hosts = rotated(allocation.hosts, rotation)
    placement = place(
        topology,
        tuple(host.name for host in hosts),
        system.cluster.gpus_per_node,
        default_tp=system.tensor_parallel,
    )
    return topology_pairs(placement)


def _plan(
    allocation: Allocation, topology: Topology, system: System, rotation: int
) -> TransferPlan:
    """Return the pairs of the topology, with the one shape to measure."""
    make_model(system)
    kv = load_kv_shape(system)
    return TransferPlan(
        pairs=placed_pairs(allocation, topology, system, rotation),
        backends=(system.kv_transfer.backend,),
        shapes=(shape_of(preflight_case(system, prompts=kv is not None), system, kv),),
        repeats=REPEATS,
    )


def floor_of(
    system: System, baseline: TransferBaseline | None, one: PairFigures | None
) -> Floor | None:
    """Return the minimum rate of pairs: that of the system file, else the baseline's limit.

    :param one: a measured pair with one shape, whose reference is used; None without one.
    :returns: None if there is neither.
    """
    floor = system.transfer.floor_gb_s
    if floor is not None:
        return Floor(gb_s=floor, source=f"[transfer] floor_gb_s of {system.source}")
    if baseline is None or one is None:
        return None
    reference = baseline.find(one.backend, one.memory, one.figures[0].shape)
    if reference is None:
        return None
    return Floor(
        gb_s=reference.floor_gb_s,
        source=f"baseline {reference.gb_s:.2f} GB/s, limit {reference.limit:+.0%} of time",
    )


def _no_floor(system: System) -> str:
    return (
        f"[transfer] preflight = true of {system.source}: expected a minimum rate of pairs; set "
        "floor_gb_s in [transfer], or accept a baseline with pdserve transfer --system "
        f"{system.name} --accept"
    )


def _slow_text(pairs: Sequence[Pair], slow: dict[Pair, str], system: System) -> str:
    """Return the message: the slow pairs, the likely node, and commands that repeat them."""
    lines = [f"slow before any model is loaded: {len(slow)} of {len(pairs)} pairs"]
    lines += node_lines({pair: pair in slow for pair in pairs})
    for pair, text in slow.items():
        lines += [text, f"  repeat  {repeat_command(system, pair, system.kv_transfer.backend)}"]
    return "\n".join(lines)
