"""The tables ``[slurm]`` and ``[preflight]``: how to request nodes, and what nodes must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import ClusterSpec
from pytest_pdserve.values.system import Gib
from pytest_pdserve.values.system import Seconds

Device = Annotated[str, Meta(pattern="^/dev/")]
Word = Annotated[str, Meta(pattern=r"^\S+(?![\s\S])")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSpec:
    """The table ``[slurm]``: how a job is submitted and watched."""

    partition: Word = ""
    """Partition; empty uses Slurm's default, as do the next six."""
    account: Word = ""
    """Account to charge."""
    qos: Word = ""
    """Quality of service."""
    constraint: Annotated[str, Meta(min_length=1)] = ""
    """Node features, in sbatch's own syntax."""
    reservation: Word = ""
    """Reservation."""
    exclude: Word = ""
    """Nodes never to use, as a host list, e.g. ``p5-[03,07]``."""
    gres: Word = ""
    """Generic resources per node, e.g. ``gpu:8``."""
    exclusive: bool = True
    """True if no other job may share the nodes."""
    time_limit_min: Annotated[int, Meta(ge=1, le=1_000_000)] = 240
    """Minutes after which Slurm ends the job."""
    parameters: Mapping[Annotated[str, Meta(pattern="^[a-z][a-z-]*$")], str | int | bool] = field(
        default_factory=dict
    )
    """Further sbatch parameters by their long names, e.g. ``switches``."""
    client_node: bool = False
    """True if one more node is requested, which runs only the benchmark client."""
    interface: Word = ""
    """Network interface whose IPv4 address nodes are reached by; empty is the default route's."""
    queue_s: Seconds = 3600.0
    """Longest wait in the queue, seconds."""
    beat_s: Annotated[float, Meta(gt=0, le=10)] = 5.0
    """Time between two heartbeats of the session, seconds."""
    lease_s: Annotated[float, Meta(ge=5, le=60)] = 30.0
    """Time without a heartbeat after which nodes end their processes and the job, seconds."""
    report_s: Seconds = 60.0
    """Longest time from the job's start until all nodes have reported, seconds."""
    replacements: Annotated[int, Meta(ge=0, le=5)] = 1
    """How often nodes that fail the preflight are excluded and others requested."""

    @property
    def clusters(self) -> str:
        """Clusters that sbatch may choose from, comma-separated; empty is the login node's own."""
        return str(self.parameters.get("clusters", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The table ``[preflight]``: what each node must have before servers start on it."""

    gpus: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """GPUs that ``nvidia-smi`` must list; None is not checked."""
    devices: Mapping[Device, Annotated[int, Meta(ge=1, le=1_000_000)]] = field(default_factory=dict)
    """Minimum number of device files by glob, e.g. 32 for ``/dev/infiniband/uverbs*``."""
    memory_gib: Gib = 0.0
    """Memory that must be available, GiB."""


def check_cluster(cluster: ClusterSpec, preflight: Preflight) -> None:
    """Raise if no session on a Slurm cluster could use these settings.

    :raises ConfigError: with the JSON pointer of the key.
    """
    if not cluster.shared_host and _is_loopback(cluster.bind_host or ""):
        raise ConfigError(
            f"/cluster/bind_host: is {cluster.bind_host!r}, which other nodes cannot reach; "
            "remove it: the default is the address of the chosen interface"
        )
    # Each node of a shared host sees the GPUs of all of them.
    there = cluster.gpus_per_node * (cluster.held_nodes if cluster.shared_host else 1)
    if preflight.gpus is not None and preflight.gpus > there:
        where = "nodes x cluster.gpus_per_node" if cluster.shared_host else "cluster.gpus_per_node"
        raise ConfigError(
            f"/preflight/gpus: is {preflight.gpus}, but a node has {there} GPUs ({where}): no node "
            "could pass; correct one of the two"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("localhost.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node's report about itself."""

    node: str
    """Slurm's name of the node."""
    address: str | None
    """IPv4 address of the chosen interface; None if it has none."""
    interface: str | None
    """Interface of the address; None if there is no default route."""
    interfaces: tuple[str, ...]
    """All interfaces with an IPv4 address."""
    gpus: int | None
    """GPUs that ``nvidia-smi`` lists; None if it is missing or fails."""
    devices: tuple[str, ...]
    """Device files that match the configured globs."""
    memory_available_gib: float
    host: Mapping[str, str]
    """Hardware, as in records."""
    versions: Mapping[str, str]
    """Of kernel, GPU driver and EFA installer."""


def has_interfaces(seen: NodeFacts) -> bool:
    """Return whether a node has an RDMA device, or EFA's software."""
    return "efa" in seen.versions or any(d.startswith("/dev/infiniband/") for d in seen.devices)


def node_losses(before: NodeFacts, after: NodeFacts) -> tuple[str, ...]:
    """Return what a node has lost since it was acquired, as clauses; empty if nothing."""
    found = []
    if before.gpus is not None and (after.gpus or 0) < before.gpus:
        shown = "nvidia-smi fails" if after.gpus is None else f"{after.gpus} GPUs left"
        found.append(f"lost GPUs: {shown} of {before.gpus}")
    if lost := sorted(set(before.devices) - set(after.devices)):
        found.append(f"lost devices: {', '.join(lost)}")
    if before.address is not None and after.address != before.address:
        found.append(f"changed its address from {before.address} to {after.address}")
    return tuple(found)


def node_troubles(facts: NodeFacts, preflight: Preflight, interface: str = "") -> tuple[str, ...]:
    """Return why a node fails the preflight, as clauses with both numbers; empty if it passes.

    :param interface: the interface of the system file; empty if it names none.
    """
    found = []
    if facts.address is None:
        which = f"interface {interface!r}" if interface else "interface of a default route"
        has = ", ".join(facts.interfaces) or "none"
        found.append(f"has no IPv4 address on an {which}; it has {has} (slurm.interface)")
    if preflight.gpus is not None and facts.gpus != preflight.gpus:
        shown = "nvidia-smi fails" if facts.gpus is None else f"{facts.gpus} GPUs"
        found.append(f"shows {shown}, needs {preflight.gpus} (preflight.gpus)")
    for pattern, count in preflight.devices.items():
        present = [d for d in facts.devices if fnmatchcase(d, pattern)]
        if len(present) < count:
            found.append(f"has {len(present)} {pattern}, needs {count} (preflight.devices)")
    if facts.memory_available_gib < preflight.memory_gib:
        found.append(
            f"has {facts.memory_available_gib:.1f} GiB of memory available, "
            f"needs {preflight.memory_gib:g} (preflight.memory_gib)"
        )
    return tuple(found)
