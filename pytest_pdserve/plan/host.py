"""What planning must know of a node, and how cores are shared out among slots."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pdserve.values.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node as its allocation sees it."""

    name: str
    """Name by which the allocation knows it."""
    address: str
    """IPv4 address (or name) that other nodes reach it by."""
    interface: str
    """Network interface of that address, for NCCL and Gloo."""
    cpus: tuple[int, ...] = ()
    """Cores its processes are pinned to; empty is no pinning."""
    devices: tuple[str, ...] = ()
    """Device files that a container needs and this node has, e.g. ``/dev/infiniband/uverbs0``."""


def planned_hosts(system: System, cores: int = 0) -> tuple[Host, ...]:
    """The nodes of *system* before they are allocated.

    Slots of this machine are known: loopback, and their share of *cores*. Of other nodes,
    addresses and interfaces are placeholders in braces, and devices are globs.
    """
    nodes = system.cluster.nodes
    if system.cluster.kind == "local":
        shares = slot_cpus(cores, nodes)
        return tuple(
            Host(name=f"local{n}", address="127.0.0.1", interface="lo", cpus=shares[n])
            for n in range(nodes)
        )
    return tuple(
        Host(
            name=f"node{n}",
            address=f"{{node{n}.address}}",
            interface=f"{{node{n}.interface}}",
            devices=system.container.devices,
        )
        for n in range(nodes)
    )


def slot_cpus(cores: int, slots: int) -> tuple[tuple[int, ...], ...]:
    """Share *cores* among *slots*; the first core is left to router and client.

    With fewer than two cores a slot, nothing is pinned: the scheduler does better.

    :returns: for each slot its cores, or an empty tuple.
    """
    share = (cores - 1) // slots if slots else 0
    if share < 2:
        return ((),) * slots
    return tuple(tuple(range(1 + s * share, 1 + (s + 1) * share)) for s in range(slots))
