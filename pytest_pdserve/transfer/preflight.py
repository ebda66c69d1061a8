"""Checks that the node pairs of topologies are fast enough, and replaces slow nodes."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.nodes import HeldNodes
from pytest_pdserve.judge.transfer import below_floor
from pytest_pdserve.judge.transfer import node_lines
from pytest_pdserve.judge.transfer import slow_node_text
from pytest_pdserve.judge.transfer import slow_nodes
from pytest_pdserve.plan.placement import nodes_needed
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
from pytest_pdserve.transfer.measuring import new_label
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import TransferError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import CheckedPair
from pytest_pdserve.values.transfer import CheckedPairs
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBackend
from pytest_pdserve.values.transfer import TransferBaseline
from pytest_pdserve.values.transfer import TransferShape

REPEATS = 5
"""How often a pair is measured; takes seconds in total."""
PairShape = tuple[Pair, TransferShape]


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The minimum rate that every pair must reach."""

    gb_s: float
    """In 1e9 bytes per second."""
    source: str
    """Origin of the number, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """Measures and checks the node pairs of topologies that start together."""

    allocation: Allocation
    system: System
    topologies: tuple[Topology, ...]
    """One, or all that share instances."""
    rotation: int
    """Places by which nodes are rotated before instances are put on them."""
    baseline: TransferBaseline | None
    """Reference of transfers, used if the system file gives no floor."""
    checked: CheckedPairs
    """Pairs that the session has checked so far; new ones are added."""
    store: RunStore
    """Storage of records."""
    fingerprint: str
    """Digest of hardware and system file."""
    progress: Progress

    def check(self) -> None:
        """Measure the pairs that are not known to be fast enough, with the longest prompt.

        A pair below the floor is measured once more, so that one disturbance does not count as a
        slow node. A node that is slow in all of its pairs is excluded, if another node can take
        its place; the pairs that are new are then measured too.

        :raises ConfigError: if there is neither a floor nor a baseline.
        :raises TransferError: if a transfer fails.
        """
        for key in self._wanted():
            if key in self.checked and self.checked[key].why_slow:
                del self.checked[key]
        while True:
            wanted = self._wanted()
            self._measure_new(wanted)
            nodes = self._slow_nodes(wanted)
            if not nodes or self._why_kept(nodes):
                break
            for node in nodes:
                self._exclude(node)
        if slow := self._slow(wanted):
            names = ", ".join(each.id for each in self._stopped())
            self.progress(
                f"preflight: {len(slow)} of {len(wanted)} pairs below the required rate: "
                f"{', '.join(str(pair) for pair, _ in slow)}; cannot run: {names}"
            )

    def require(self, topology: Topology) -> None:
        """Raise if a pair of *topology*, which :meth:`check` has measured, is too slow.

        :raises TransferError: naming the slow pairs, their nodes, and the topologies that cannot
            run.
        """
        wanted = self._pairs(topology)
        slow = self._slow(wanted)
        if not slow:
            return
        count, names = len(slow), ", ".join(each.id for each in self._stopped())
        lines = [
            f"slow before any model is loaded: {count} of {len(wanted)} pairs; cannot run: {names}",
            *node_lines(self._speeds()),
        ]
        if why := self._why_kept(slow_nodes(self._speeds())):
            lines.append(why)
        for pair, shape in slow:
            repeat = repeat_command(self.system, pair, self._backend)
            lines += [self.checked[pair, shape].why_slow, f"  repeat  {repeat}"]
        raise TransferError("\n".join(lines))

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

    @property
    def _backend(self) -> TransferBackend:
        return self.system.kv_transfer.backend

    @property
    def _needed(self) -> int:
        """Number of nodes that the topologies need."""
        return max(nodes_needed(each, self.system) for each in self.topologies)

    def _pairs(self, topology: Topology) -> tuple[PairShape, ...]:
        """Return the pairs of nodes of *topology*, with the one shape to measure."""
        pairs = placed_pairs(self.allocation, topology, self.system, self.rotation)
        if not pairs:
            return ()
        make_model(self.system)
        kv = load_kv_shape(self.system)
        case = preflight_case(self.system, prompts=kv is not None)
        shape = shape_of(case, self.system, kv, topology=topology)
        return tuple((pair, shape) for pair in pairs)

    def _wanted(self) -> tuple[PairShape, ...]:
        """Return the pairs of all topologies, each once."""
        return tuple(dict.fromkeys(key for each in self.topologies for key in self._pairs(each)))

    def _slow(self, wanted: Iterable[PairShape]) -> list[PairShape]:
        return [key for key in wanted if self.checked[key].why_slow]

    def _stopped(self) -> list[Topology]:
        """Return the topologies that cannot run, because a pair is too slow."""
        return [each for each in self.topologies if self._slow(self._pairs(each))]

    def _measure_new(self, wanted: Iterable[PairShape]) -> None:
        """Measure the pairs that are not in :attr:`checked`, one shape after the other."""
        new = [key for key in wanted if key not in self.checked]
        if new and self.system.transfer.floor_gb_s is None and self.baseline is None:
            raise ConfigError(_no_floor(self.system))
        for shape in dict.fromkeys(shape for _, shape in new):
            self._measure_shape(shape, tuple(pair for pair, own in new if own == shape))

    def _measure_shape(self, shape: TransferShape, pairs: tuple[Pair, ...]) -> None:
        plan = TransferPlan(
            pairs=pairs,
            backends=(self._backend,),
            shapes=(shape,),
            repeats=REPEATS,
        )
        name = "shared" if len(self.topologies) > 1 else self.topologies[0].id
        label = new_label(name, self.store.folder)
        measured = self.measure(plan, label)
        floor = self._floor(measured[0])
        slow = below_floor(measured, floor.gb_s, source=floor.source)
        if slow:
            again = self.measure(replace(plan, pairs=(*slow,)), f"{label}-again")
            slow = below_floor(again, floor.gb_s, source=floor.source)
            measured = tuple({each.pair: each for each in (*measured, *again)}.values())
        for one in measured:
            checked = CheckedPair(measured=one, why_slow=slow.get(one.pair, ""))
            self.checked[one.pair, shape] = checked
        if not slow:
            slowest = min(figure.gb_s for one in measured for figure in one.figures)
            self.progress(
                f"preflight: {shape.id} moves at {slowest:.3g} GB/s or more (pairs: "
                f"{len(measured)}), expected at least {floor.gb_s:.3g} GB/s"
            )

    def _floor(self, one: PairFigures) -> Floor:
        floor = floor_of(self.system, self.baseline, one)
        if floor is None:
            raise ConfigError(_no_floor(self.system))
        return floor

    def _speeds(self) -> dict[Pair, bool]:
        """Return whether each pair is slow, without those of excluded nodes."""
        allocation = self.allocation
        gone = allocation.excluded if isinstance(allocation, HeldNodes) else {}
        slow: dict[Pair, bool] = {}
        for (pair, _), one in self.checked.items():
            if pair.reader not in gone and pair.source not in gone:
                slow[pair] = slow.get(pair, False) or bool(one.why_slow)
        return slow

    def _slow_nodes(self, wanted: Sequence[PairShape]) -> tuple[str, ...]:
        """Return the nodes that cause slow pairs among *wanted*.

        If no pair is fast, or either node of a slow pair may be the cause, both are also measured
        with a node that is not in use.
        """
        slow = self._slow(wanted)
        if not slow:
            return ()
        unused, speeds = self._unused(wanted), self._speeds()
        if unused and not (slow_nodes(speeds) and not all(speeds.values())):
            fast = {n for pair, is_slow in speeds.items() if not is_slow for n in _nodes(pair)}
            self._measure_new(_with_another(slow, unused[0], fast))
        involved = {*unused, *(node for pair, _ in slow for node in _nodes(pair))}
        return tuple(node for node in slow_nodes(self._speeds()) if node in involved)

    def _unused(self, wanted: Sequence[PairShape]) -> list[str]:
        """Return the nodes that could take the place of another: spare ones first."""
        allocation = self.allocation
        if not isinstance(allocation, HeldNodes):
            return []
        nodes = [host.name for host in (*allocation.spares, *allocation.hosts)]
        used = {node for pair, _ in wanted for node in _nodes(pair)}
        return [node for node in nodes if node not in used] if len(nodes) > self._needed else []

    def _why_kept(self, nodes: Sequence[str]) -> str:
        """Return why *nodes* cannot be replaced; empty if they can, or there are none."""
        allocation, cluster = self.allocation, self.system.cluster
        if not nodes:
            return ""
        if not isinstance(allocation, HeldNodes):
            return f"nodes of [cluster] kind {cluster.kind!r} are not replaced"
        if allocation.client_node in nodes and not cluster.shared_host:
            return (
                f"{allocation.client_node} is not replaced, since the benchmark client runs there: "
                f"set client_node in [slurm] of {self.system.source}, or exclude the node"
            )
        left = len(allocation.hosts) + len(allocation.spares) - len(nodes)
        if left < self._needed:
            return (
                f"no spare node can take the place of {', '.join(nodes)}: hold more with "
                f"spare_nodes in [cluster] of {self.system.source}"
            )
        return ""

    def _exclude(self, node: str) -> None:
        """Exclude a slow node from the session; the next pairs use another one."""
        allocation = self.allocation
        assert isinstance(allocation, HeldNodes)
        slow = [
            one.measured
            for (pair, _), one in self.checked.items()
            if node in _nodes(pair) and pair in self._speeds()
        ]
        floor = self._floor(slow[0])
        why = slow_node_text(slow, floor.gb_s, source=floor.source)
        other = allocation.exclude(node, why)
        place = f", and {other} takes its place" if other else ""
        self.progress(f"preflight: {node} is excluded from this session{place}: {why}")


def _with_another(
    slow: Sequence[PairShape], node: str, fast: Collection[str]
) -> tuple[PairShape, ...]:
    """Return pairs of *node* with the ends of *slow* pairs, except with nodes of *fast*."""
    pairs: dict[PairShape, None] = {}
    for pair, shape in slow:
        if pair.reader not in fast:
            pairs[replace(pair, source=node), shape] = None
        if pair.source not in fast:
            pairs[replace(pair, reader=node), shape] = None
    return tuple(pairs)


def placed_pairs(
    allocation: Allocation, topology: Topology, system: System, rotation: int
) -> tuple[Pair, ...]:
    """Return the pairs of nodes between which a topology moves KV caches.

    :param rotation: places by which nodes are rotated before instances are put on them.
    """
    if not topology.disaggregated:
        return ()
    hosts = rotated(allocation.hosts, rotation)
    placement = place(
        topology,
        tuple(host.name for host in hosts),
        system.cluster.gpus_per_node,
        default_tp=system.tensor_parallel,
    )
    return topology_pairs(placement)


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


def _nodes(pair: Pair) -> tuple[str, str]:
    return pair.reader, pair.source
