"""What a system file says of Slurm: how nodes are asked for, and what a node must have."""

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
    """How an allocation is had, held and given up."""

    partition: Word = ""
    """Partition; empty leaves it to Slurm, as do the next six."""
    account: Word = ""
    """Account that pays."""
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
    """Whether no other job may share the nodes."""
    time_limit_min: Annotated[int, Meta(ge=1, le=1_000_000)] = 240
    """Minutes after which Slurm ends the job, whatever it does."""
    parameters: Mapping[Annotated[str, Meta(pattern="^[a-z][a-z-]*$")], str | int | bool] = field(
        default_factory=dict
    )
    """Further sbatch parameters by their long names, e.g. ``switches``."""
    client_node: bool = False
    """Whether one more node is asked for, which runs nothing but the benchmark client."""
    interface: Word = ""
    """Network interface whose IPv4 address nodes are reached by; empty is the default route's."""
    queue_s: Seconds = 3600.0
    """Longest wait in the queue, seconds."""
    beat_s: Annotated[float, Meta(gt=0, le=10)] = 5.0
    """Between two heartbeats of the session, seconds."""
    lease_s: Annotated[float, Meta(ge=5, le=60)] = 30.0
    """Without a heartbeat for this long, every node ends what it runs and the job ends, seconds."""
    report_s: Seconds = 60.0
    """From the job's start until every node has said what it is, seconds."""
    replacements: Annotated[int, Meta(ge=0, le=5)] = 1
    """How often nodes that fail the preflight are excluded, and others asked for."""

    @property
    def clusters(self) -> str:
        """Clusters that sbatch may choose from, with commas; empty is the login node's own."""
        return str(self.parameters.get("clusters", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What each node must show before anything is started on it; what is not said is not asked."""

    gpus: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """GPUs that ``nvidia-smi`` must list."""
    devices: Mapping[Device, Annotated[int, Meta(ge=1, le=1_000_000)]] = field(default_factory=dict)
    """Glob of device files and how many there must be, e.g. ``/dev/infiniband/uverbs*``, 32."""
    memory_gib: Gib = 0.0
    """Memory that must be available, GiB."""


def check_cluster(cluster: ClusterSpec, preflight: Preflight) -> None:
    """Refuse what no session on nodes of a Slurm cluster could use.

    :raises ConfigError: with the JSON pointer of the key.
    """
    if not cluster.shared_host and _is_loopback(cluster.bind_host or ""):
        raise ConfigError(
            f"/cluster/bind_host: is {cluster.bind_host!r}, where no other node reaches a server; "
            "remove it: the default is the address of the chosen interface"
        )
    # Each node of a shared host sees the GPUs of all of them.
    there = cluster.gpus_per_node * (cluster.nodes if cluster.shared_host else 1)
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
    """What a node says of itself."""

    node: str
    """Name by which Slurm knows it."""
    address: str | None
    """IPv4 address of the chosen interface; None if it has none."""
    interface: str | None
    """The chosen interface; None if there is no default route."""
    interfaces: tuple[str, ...]
    """All interfaces with an IPv4 address."""
    gpus: int | None
    """GPUs that ``nvidia-smi`` lists; None without it, or if it fails."""
    devices: tuple[str, ...]
    """Device files that match the globs asked for."""
    memory_available_gib: float
    """Memory that is available."""
    host: Mapping[str, str]
    """Hardware, as records keep it."""
    versions: Mapping[str, str]
    """What lies below the containers: kernel, GPU driver, EFA installer."""


def has_interfaces(seen: NodeFacts) -> bool:
    """Tell whether a node showed a device of RDMA, or EFA's software."""
    return "efa" in seen.versions or any(d.startswith("/dev/infiniband/") for d in seen.devices)


def node_losses(before: NodeFacts, after: NodeFacts) -> tuple[str, ...]:
    """What a node had when it was acquired and has no more, each as a clause; empty if nothing."""
    found = []
    if before.gpus is not None and (after.gpus or 0) < before.gpus:
        shown = "nvidia-smi fails" if after.gpus is None else f"{after.gpus} GPUs left"
        found.append(f"lost GPUs: {shown} of {before.gpus}")
    if lost := sorted(set(before.devices) - set(after.devices)):
        found.append(f"lost devices: {', '.join(lost)}")
    if before.address is not None and after.address != before.address:
        found.append(f"changed its address from {before.address} to {after.address}")
    return tuple(found)


def node_troubles(facts: NodeFacts, asked: Preflight, interface: str = "") -> tuple[str, ...]:
    """What keeps a node from being used, each as a clause with both numbers; empty if nothing.

    :param interface: the interface that the system file names, or the empty string.
    """
    found = []
    if facts.address is None:
        which = f"interface {interface!r}" if interface else "interface of a default route"
        has = ", ".join(facts.interfaces) or "none"
        found.append(f"has no IPv4 address on an {which}; it has {has} (slurm.interface)")
    if asked.gpus is not None and facts.gpus != asked.gpus:
        shown = "nvidia-smi fails" if facts.gpus is None else f"{facts.gpus} GPUs"
        found.append(f"shows {shown}, needs {asked.gpus} (preflight.gpus)")
    for pattern, count in asked.devices.items():
        present = [d for d in facts.devices if fnmatchcase(d, pattern)]
        if len(present) < count:
            found.append(f"has {len(present)} {pattern}, needs {count} (preflight.devices)")
    if facts.memory_available_gib < asked.memory_gib:
        found.append(
            f"has {facts.memory_available_gib:.1f} GiB of memory available, "
            f"needs {asked.memory_gib:g} (preflight.memory_gib)"
        )
    return tuple(found)
