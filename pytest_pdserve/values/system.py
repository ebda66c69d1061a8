"""Systems: what kind of machine serves, with which model, transfer and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal
from typing import Self

from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import TIMES
from pytest_pdserve.values.simulation import SimulationSpec
from pytest_pdserve.values.slurm import Preflight
from pytest_pdserve.values.slurm import SlurmSpec
from pytest_pdserve.values.workload import Sweep

ClusterKind = Literal["local", "slurm", "attached", "simulated", "figures"]


def _given(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Pick what *table* says of *names*; what it leaves out keeps the dataclass's default."""
    return {
        name: tuple(table[name]) if isinstance(table[name], list) else table[name]
        for name in names
        if name in table
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The machines of a system."""

    kind: ClusterKind
    """How nodes are had; of ``figures`` there are none, only values off somebody's plots."""
    nodes: int
    """Nodes; on a local system, slots of this machine."""
    gpus_per_node: int
    """GPUs of a node; a CPU slot counts as one."""
    shared_host: bool = False
    """Whether all nodes are one machine, so that instances compete for its cores."""
    memory_per_instance_gib: float = 0.0
    """Memory that one instance needs at most, GiB; 0 is not checked."""
    bind_host: str = "0.0.0.0"  # noqa: S104 - the launcher's own default: other nodes must reach it
    """Address that servers listen on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortScheme:
    """Where ports are looked for; each kind goes up from its base to the first that is free."""

    http: int = 8000
    """Base for instances and router."""
    side_channel: int = 5600
    """Base for the NIXL side channel, which exchanges agent metadata."""
    rpc: int = 13345
    """Base for the data-parallel RPC of a group."""
    span: int = 1000
    """Ports of each kind that may be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is served."""

    path: str
    """Folder or hub name, as ``vllm serve`` takes it; ``tiny`` is made on the spot."""
    serve_args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``, for every instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Executables; a bare name is looked for beside this Python, then on PATH."""

    vllm: str = "vllm"
    """Runs ``serve`` and ``bench serve``."""
    router: str = "vllm-router"
    """The router."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """How the KV cache moves from prefill to decode."""

    connector: str = "NixlConnector"
    """vLLM's KV connector."""
    backend: str = "LIBFABRIC"
    """NIXL backend: ``LIBFABRIC`` or ``UCX``."""
    buffer_device: str | None = None
    """``kv_buffer_device``; None keeps vLLM's default."""
    load_failure_policy: str = "fail"
    """``fail`` shows a lost transfer as an error; ``recompute`` would hide it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, seconds."""

    ready_s: float = 1800.0
    """From start to all instances healthy (the article's launcher: 1800 s)."""
    warmup_s: float = 300.0
    """For one warm-up request."""
    bench_start_s: float = 120.0
    """For the benchmark client to start and stop, beside the work asked."""
    slowest_tok_s: float = 50.0
    """Below this rate, tokens/s of prompt and output together, a benchmark counts as hung."""
    stop_s: float = 15.0
    """From SIGTERM to SIGKILL of a process group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What of a run is judged on this system, and how wide."""

    host_envelopes: bool = False
    """Whether time envelopes are kept per host fingerprint instead of in the repository."""
    claims: Literal["enforce", "report"] = "enforce"
    """``report`` shows claims with their numbers and never fails on them."""
    rtol: tuple[tuple[str, float], ...] = ()
    """Metric and least room toward worse, where this system is noisier than the practical floor."""

    @property
    def nights(self) -> bool:
        """Whether any time is judged by nights: one without a fixed limit here."""
        return bool(set(TIMES) - set(dict(self.rtol)))

    def check(self) -> None:
        """Refuse to judge by nights what every host keeps for itself: it would be one night each.

        :raises ConfigError: naming the metrics without a limit.
        """
        if self.host_envelopes and self.nights:
            open_ = [name for name in TIMES if name not in dict(self.rtol)]
            raise ConfigError(
                "[judgement] host_envelopes keeps one run of each host, which takes a limit for "
                f"every time; [judgement.rtol] has none for {', '.join(open_)}"
            )

    def floor(self, metric: str, default: float) -> float:
        """Least relative room of *metric*'s envelope."""
        return dict(self.rtol).get(metric, default)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One kind of machine and fabric; ``baselines/<name>/system.toml``."""

    name: str
    """Folder under ``baselines``."""
    source: str
    """File that says so."""
    description: str
    """One line for people."""
    cluster: ClusterSpec
    """Machines."""
    model: ModelSpec
    """Model."""
    programs: Programs = field(default_factory=Programs)
    """Executables."""
    container: ContainerSpec = field(default_factory=ContainerSpec)
    """Containers."""
    ports: PortScheme = field(default_factory=PortScheme)
    """Ports."""
    kv_transfer: KvTransfer = field(default_factory=KvTransfer)
    """KV transfer."""
    limits: Limits = field(default_factory=Limits)
    """Time-outs."""
    sweep: Sweep = field(default_factory=Sweep)
    """Workloads of the sweep suite."""
    judgement: Judgement = field(default_factory=Judgement)
    """Width of envelopes."""
    slurm: SlurmSpec = field(default_factory=SlurmSpec)
    """How Slurm is asked for nodes."""
    preflight: Preflight = field(default_factory=Preflight)
    """What each node must show first."""
    simulation: SimulationSpec = field(default_factory=SimulationSpec)
    """What a simulated run adds to the model."""
    tensor_parallel: int | None = None
    """GPUs per engine where the topology's name does not say; None takes the whole node."""
    env: tuple[tuple[str, str], ...] = ()
    """Environment of every server process."""
    pd_env: tuple[tuple[str, str], ...] = ()
    """Environment of instances that take part in KV transfer, beside :attr:`env`."""
    router_args: tuple[str, ...] = ()
    """Further arguments of ``vllm-router``."""
    bench_args: tuple[str, ...] = ()
    """Further arguments of ``vllm bench serve``."""

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], *, name: str, source: str) -> Self:
        """Build a system from a parsed file that the schema has admitted.

        :raises ConfigError: if the sweep's lengths cannot be divided, or containers or judgement
            contradict themselves.
        """
        sweep = dict(data.get("sweep", {}))
        sweep["options"] = list(sweep.get("options", {}).items())
        sweep["request_rate"] = float(sweep.get("request_rate", math.inf))
        judgement = dict(data.get("judgement", {}))
        judgement["rtol"] = list(judgement.get("rtol", {}).items())
        slurm = dict(data.get("slurm", {}))
        slurm["parameters"] = list(slurm.get("parameters", {}).items())
        preflight = dict(data.get("preflight", {}))
        preflight["devices"] = list(preflight.get("devices", {}).items())
        system = cls(
            name=name,
            source=source,
            description=data["description"],
            cluster=ClusterSpec(**_given(data["cluster"], *ClusterSpec.__slots__)),
            model=ModelSpec(**_given(data["model"], *ModelSpec.__slots__)),
            programs=Programs(**_given(data.get("programs", {}), *Programs.__slots__)),
            container=ContainerSpec(**_given(data.get("container", {}), *ContainerSpec.__slots__)),
            ports=PortScheme(**_given(data.get("ports", {}), *PortScheme.__slots__)),
            kv_transfer=KvTransfer(**_given(data.get("kv_transfer", {}), *KvTransfer.__slots__)),
            limits=Limits(**_given(data.get("limits", {}), *Limits.__slots__)),
            sweep=Sweep(**_given(sweep, *Sweep.__slots__)),
            judgement=Judgement(**_given(judgement, *Judgement.__slots__)),
            slurm=SlurmSpec(**_given(slurm, *SlurmSpec.__slots__)),
            preflight=Preflight(**_given(preflight, *Preflight.__slots__)),
            simulation=SimulationSpec.from_toml(data.get("simulation", {})),
            tensor_parallel=data.get("tensor_parallel"),
            env=tuple(data.get("env", {}).items()),
            pd_env=tuple(data.get("pd_env", {}).items()),
            router_args=tuple(data.get("router", {}).get("args", ())),
            bench_args=tuple(data.get("bench", {}).get("args", ())),
        )
        system.sweep.workloads()
        system.container.check()
        system.judgement.check()
        return system
