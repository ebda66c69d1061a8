"""The nodes of an allocation: those in use, spare ones, and excluded ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.images import Image
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.placement import nodes_needed
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


class HeldNodes:
    """Base class of allocations whose nodes are the session's own.

    It can exclude a node and use a spare one in its place, and start servers in another image.
    """

    containment: Containment
    """Wraps commands so that they run in containers."""
    image: Image
    """Image of these containers."""

    def __init__(self, nodes: Sequence[Host], used: int) -> None:
        """Use the first *used* nodes; the others are spare."""
        self.hosts = tuple(nodes[:used])
        self.spares = tuple(nodes[used:])
        self.excluded: dict[str, str] = {}
        """Reason by excluded node."""

    def exclude(self, node: str, why: str) -> str | None:
        """Stop using *node* for the rest of the session.

        :returns: the spare node that takes its place; None if no spare node is left, or *node*
            itself is spare.
        """
        self.excluded[node] = why
        names = [host.name for host in self.hosts]
        if node not in names:
            self.spares = tuple(host for host in self.spares if host.name != node)
            return None
        place, spare = names.index(node), self.spares[:1]
        self.hosts = (*self.hosts[:place], *spare, *self.hosts[place + 1 :])
        self.spares = self.spares[1:]
        return spare[0].name if spare else None

    def provide_image(self, spec: ContainerSpec, progress: Progress) -> Image:
        """Load or pull the image of *spec* on all nodes, at the same time.

        :raises AllocationError: naming nodes that failed, or that have different images.
        """
        raise NotImplementedError

    def make_image_present(self, progress: Progress) -> None:
        """Load or pull the system's image, and use it from now on.

        :raises AllocationError: as :meth:`provide_image`.
        """
        self.use_image(self.provide_image(self.containment.spec, progress))

    @contextlib.contextmanager
    def using_image(self, image: Image) -> Iterator[None]:
        """Run what is started in the block in *image*, in place of the system's."""
        own = self.image
        self.use_image(image)
        try:
            yield
        finally:
            self.use_image(own)

    def use_image(self, image: Image) -> None:
        """Run what is started from now on in *image*."""
        self.image = image
        self.containment = replace(self.containment, image=image.name)


def spare_hosts(allocation: Allocation) -> tuple[Host, ...]:
    """Return the spare nodes of *allocation*; empty if its backend holds none."""
    return allocation.spares if isinstance(allocation, HeldNodes) else ()


def with_spares(system: System) -> System:
    """Return *system* with its spare nodes counted as nodes, for what each held node needs."""
    cluster = replace(system.cluster, nodes=system.cluster.held_nodes, spare_nodes=0)
    return replace(system, cluster=cluster)


def check_complete(allocation: Allocation, topology: Topology, system: System) -> None:
    """Raise if *topology* needs a node that was excluded and not replaced.

    An aggregated topology uses all nodes: on fewer, it would be another one.

    :raises PlacementError: naming the excluded nodes.
    """
    if not isinstance(allocation, HeldNodes):
        return
    needed, there = nodes_needed(topology, system), len(allocation.hosts)
    if allocation.excluded and there < needed:
        raise PlacementError(
            f"topology {topology.id!r} needs {needed} nodes, but {there} are left: "
            f"{', '.join(allocation.excluded)} excluded from this session, and no spare node is "
            f"left; hold more with [cluster] spare_nodes of {system.source}"
        )
