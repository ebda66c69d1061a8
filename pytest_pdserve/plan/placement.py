"""Place the instances of a topology on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.roles import AGGREGATED
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import Role
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Size
from pytest_pdserve.values.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One ``vllm serve`` process of a placed topology."""

    name: str
    """``prefill[0]``, ``decode[2]``, ``aggregated[1]``, and ``aggregated[1]/rank2`` if headless."""
    role: Role
    """Role."""
    group: int
    """Number of its group in the topology."""
    node: str
    """Node that runs it."""
    slot: int
    """Position of its node in its group."""
    tp: int
    """GPUs per engine."""
    dp_local: int
    """Data-parallel engines in this process."""
    dp_size: int
    """Data-parallel engines of its whole group."""

    @property
    def dp_start(self) -> int:
        """First data-parallel rank in this process."""
        return self.slot * self.dp_local if self.headless else 0

    @property
    def headless(self) -> bool:
        """True if it only runs engines for the head of its group, without an HTTP server."""
        return self.role.name == AGGREGATED and self.slot > 0

    @property
    def spans_nodes(self) -> bool:
        """True if its data-parallel engines are spread over several nodes."""
        return self.dp_size > self.dp_local


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A topology placed on nodes."""

    topology: Topology
    nodes: tuple[str, ...]
    """Nodes in use, head node first."""
    instances: tuple[Instance, ...]
    """Instances in the order of their nodes."""

    @property
    def head(self) -> str:
        """Node of router and benchmark client."""
        return self.nodes[0]

    @property
    def size(self) -> Size:
        """Nodes and GPUs in use."""
        gpus = sum(instance.tp * instance.dp_local for instance in self.instances)
        return Size(nodes=len(self.nodes), gpus=gpus)

    @property
    def endpoints(self) -> tuple[Instance, ...]:
        """Instances that answer HTTP."""
        return tuple(instance for instance in self.instances if not instance.headless)

    def of(self, role: str) -> tuple[Instance, ...]:
        """Return the instances of *role*, of all groups."""
        return tuple(i for i in self.instances if i.role.name == role)

    @property
    def routed(self) -> bool:
        """True if it has a router; one group of aggregated instances needs none."""
        return self.topology.disaggregated or self.topology.groups > 1


def size_on(system: System, topology: str) -> Size | None:
    """Return nodes and GPUs of *topology* on *system*; None if it does not fit."""
    cluster = system.cluster
    nodes = tuple(f"node{number}" for number in range(cluster.nodes))
    try:
        placed = place(
            Topology.parse(topology),
            nodes,
            cluster.gpus_per_node,
            default_tp=system.tensor_parallel,
        )
    except PlacementError:
        return None
    return placed.size


def nodes_needed(topology: Topology, system: System) -> int:
    """Return how many nodes *topology* needs: an aggregated one uses all of the system."""
    if not topology.disaggregated:
        return system.cluster.nodes
    return topology.groups * topology.per_group


T = TypeVar("T")


def rotated(nodes: Sequence[T], places: int) -> tuple[T, ...]:
    """Return *nodes* rotated by *places* positions."""
    first = places % len(nodes)
    return (*nodes[first:], *nodes[:first])


def place(
    topology: Topology,
    nodes: tuple[str, ...],
    gpus_per_node: int,
    *,
    default_tp: int | None = None,
) -> Placement:
    """Place *topology* on *nodes* as the article's launcher does.

    An aggregated group uses (nodes / groups) nodes as one data-parallel deployment with
    nodes x (GPUs / TP) engines; a disaggregated group uses a node per instance.

    :raises PlacementError: if there are too few nodes or GPUs, or they cannot be divided.
    """
    sizes = tuple(part.tp or default_tp or gpus_per_node for part in topology.parts)
    for tp in sizes:
        _check_tp(topology, tp, gpus_per_node)
    if topology.disaggregated:
        return _place_disaggregated(topology, nodes, gpus_per_node, sizes)
    return _place_aggregated(topology, nodes, (gpus_per_node, sizes[0]))


def _check_tp(topology: Topology, tp: int, gpus_per_node: int) -> None:
    if tp > gpus_per_node:
        raise PlacementError(
            f"topology {topology.id!r} asks for tensor-parallel size {tp}, "
            f"but a node has {gpus_per_node} GPUs"
        )
    if gpus_per_node % tp:
        raise PlacementError(
            f"topology {topology.id!r}: tensor-parallel size {tp} does not divide "
            f"the {gpus_per_node} GPUs of a node"
        )


def _place_aggregated(
    topology: Topology, nodes: tuple[str, ...], shape: tuple[int, int]
) -> Placement:
    gpus_per_node, tp = shape
    per_group, rest = divmod(len(nodes), topology.groups)
    if not per_group or rest:
        raise PlacementError(
            f"topology {topology.id!r} needs a number of nodes that {topology.groups} groups "
            f"divide, but the system has {len(nodes)}"
        )
    dp_local = gpus_per_node // tp
    instances = [
        Instance(
            name=f"aggregated[{group}]" + (f"/rank{slot * dp_local}" if slot else ""),
            role=ROLES[AGGREGATED],
            group=group,
            node=nodes[group * per_group + slot],
            slot=slot,
            tp=tp,
            dp_local=dp_local,
            dp_size=per_group * dp_local,
        )
        for group in range(topology.groups)
        for slot in range(per_group)
    ]
    return Placement(topology=topology, nodes=nodes, instances=tuple(instances))


def _place_disaggregated(
    topology: Topology, nodes: tuple[str, ...], gpus_per_node: int, sizes: tuple[int, ...]
) -> Placement:
    needed = topology.groups * topology.per_group
    if needed > len(nodes):
        parts = " + ".join(f"{part.count} {part.role}" for part in topology.parts)
        raise PlacementError(
            f"topology {topology.id!r} needs {needed} nodes ({topology.groups} x ({parts})), "
            f"but the system has {len(nodes)}"
        )
    instances = []
    for group in range(topology.groups):
        slot = 0
        for part, tp in zip(topology.parts, sizes, strict=True):
            for number in range(part.count):
                instances.append(
                    Instance(
                        name=f"{part.role}[{group * part.count + number}]",
                        role=ROLES[part.role],
                        group=group,
                        node=nodes[group * topology.per_group + slot],
                        slot=slot,
                        tp=tp,
                        dp_local=gpus_per_node // tp,
                        dp_size=gpus_per_node // tp,
                    )
                )
                slot += 1
    return Placement(topology=topology, nodes=nodes[:needed], instances=tuple(instances))
