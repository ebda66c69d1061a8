"""Systems: machines, model, KV transfer, workloads and limits of a system file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Any
from typing import Literal
from typing import TypeVar

from msgspec import Meta

from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.secrets_in_files import SESSION_KEYS
from pytest_pdserve.values.stack import StackSpec
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.transfer import TransferSpec

T = TypeVar("T")
Text = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0, le=1_000_000)]
"""At most eleven days, since calls of the operating system wait for at most 24."""
Gib = Annotated[float, Meta(ge=0, le=1_000_000)]
Port = Annotated[int, Meta(ge=1, le=65535)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(?![\s\S])")]
Variables = Mapping[VariableName, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The machines of a system."""

    kind: Text | None = None
    """Name of the backend that provides servers; None for a system of figures only."""
    nodes: Annotated[int, Meta(ge=1, le=10_000)]
    """Number of nodes; on a local system, slots of this machine."""
    gpus_per_node: Annotated[int, Meta(ge=1, le=1024)]
    """GPUs of a node; a CPU slot counts as one."""
    spare_nodes: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Number of nodes that a session holds in addition to :attr:`nodes`, to replace nodes that the
    transfer preflight finds slow."""
    device: Literal["cpu", "gpu"] | None = None
    """Device of instances. On a local system, ``gpu`` assigns GPUs to each slot; None leaves the
    choice of GPUs to vLLM."""
    share_engines: bool = False
    """True if one start of instances serves all topologies whose instances differ only in their
    role; ``--pdserve-share-engines`` overrides it."""
    shared_host: bool = False
    """True if all nodes are one machine, so that instances compete for its cores."""
    memory_per_instance_gib: Gib = 0.0
    """Memory that one instance needs, GiB, checked before a start; 0 for no check."""
    bind_host: Text | None = None
    """Address on which servers listen, e.g. ``0.0.0.0`` for all of a node; None for that of the
    chosen interface only, since the router does not check API keys."""
    price_per_gpu_hour: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    """Price of a GPU per hour; None if not known."""
    currency: Text = "USD"
    """Currency of the price."""

    @property
    def held_nodes(self) -> int:
        """Number of nodes that a session holds, spare ones included."""
        return self.nodes + self.spare_nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class PortScheme:
    """Ranges of ports; each kind of port is the first free one from its base on."""

    http: Port = 8000
    """Base for instances and router."""
    side_channel: Port = 5600
    """Base for the NIXL side channel, which exchanges agent metadata."""
    rpc: Port = 13345
    """Base for the data-parallel RPC of a group."""
    span: Annotated[int, Meta(ge=1, le=64_512)] = 1000
    """Number of ports of each kind that are tried."""


Extra = Mapping[Text, str | int | float | bool]
FABRIC_LIBRARIES = "fabric"
"""Value of ``[kv_transfer] libraries`` for the folder made by ``pdserve fabric install``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleServing:
    """Additional settings of instances of one role, e.g. ``[model.decode]``."""

    serve_args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``."""
    env: Variables = field(default_factory=dict)
    """Further environment."""
    program: Text | None = None
    """Program that runs ``serve`` for this role; None for ``[programs] vllm``."""
    revision: Text | None = None
    """Folder whose ``model`` is served for this role, under the name of the system's model: another
    revision of the same model. The program must then be a path, or be on PATH."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTransfer:
    """Additional settings of the KV connector of one role, e.g. ``[kv_transfer.decode]``."""

    extra_config: Extra = field(default_factory=dict)
    """Further keys of ``kv_connector_extra_config``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Model that is served."""

    path: Text = ""
    """Folder or hub name for ``vllm serve``; ``tiny`` for a small generated model. Empty if
    :attr:`shape` is set."""
    shape: Text | None = None
    """Shape of a model that is served with random weights, instead of :attr:`path`: a name, e.g.
    ``deepseek-v2-lite``, or a folder with a ``config.json``."""
    serve_args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``, for every instance."""
    roles: Mapping[str, RoleServing] = field(default_factory=dict)
    """Settings by role; a table for each in the file, e.g. ``[model.decode]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Executables; a name without a path is searched in the folder of this Python, then on PATH."""

    vllm: Text = "vllm"
    """Program for ``serve`` and ``bench serve``."""
    router: Text = "vllm-router"
    """Program of the router."""


NIXL_CONNECTOR = "NixlConnector"
"""vLLM's KV connector that moves KV caches by NIXL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """KV transfer from prefill to decode."""

    connector: Text = NIXL_CONNECTOR
    """vLLM's KV connector."""
    backend: Literal["LIBFABRIC", "UCX"] = "LIBFABRIC"
    """NIXL backend: ``LIBFABRIC`` or ``UCX``."""
    buffer_device: Text | None = None
    """``kv_buffer_device``; None for vLLM's default."""
    libraries: Text | None = None
    """Folder of NIXL and libfabric: ``fabric`` for the one made by ``pdserve fabric install``, or a
    path of another such folder; None uses the environment's."""
    load_failure_policy: Literal["fail", "recompute"] = "fail"
    """vLLM's ``kv_load_failure_policy``: ``fail`` reports a lost transfer as an error;
    ``recompute`` would hide it."""
    extra_config: Extra = field(default_factory=dict)
    """Further keys of ``kv_connector_extra_config``, e.g. ``kv_lease_duration``."""
    roles: Mapping[str, RoleTransfer] = field(default_factory=dict)
    """Settings by role; a table for each in the file, e.g. ``[kv_transfer.decode]``."""

    @property
    def uses_nixl(self) -> bool:
        """True if KV caches are moved by NIXL."""
        return self.connector == NIXL_CONNECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Time limits, seconds."""

    ready_s: Seconds = 1800.0
    """From the start until all instances are healthy (the article's launcher: 1800 s)."""
    warmup_s: Seconds = 300.0
    """For one warm-up request."""
    bench_start_s: Seconds = 120.0
    """For the benchmark client to start and stop, in addition to the load."""
    slowest_tok_s: Seconds = 50.0
    """Rate in tokens/s of prompt and output together, below which a benchmark counts as hung."""
    stop_s: Seconds = 15.0
    """From SIGTERM to SIGKILL of a process group."""


Floors = Mapping[str, Annotated[float, Meta(gt=0, le=10)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Settings for judging runs on this system."""

    host_references: bool = False
    """True if each host has its own references, in the user's state folder, instead of one baseline
    for the system."""
    gpu_references: bool = False
    """True if hosts with the same GPU model share the references of cells, in a folder of the
    model's name in the system's folder. References of transfers and of the client are not shared.
    Without effect on a host without GPUs."""
    claims: Literal["enforce", "report"] = "enforce"
    """``report`` shows claims with their numbers, and never fails on them."""
    max_reruns: Annotated[int, Meta(ge=0, le=100_000)] = 48
    """Largest number of runs of suspicious cells on fresh starts in a session."""
    floors: Floors = field(default_factory=dict)
    """Smallest limit by metric, as a fraction of worse by ratio, if it is not the metric's default:
    about five times the metric's spread on this system."""
    sees: Floors = field(default_factory=dict)
    """Limit by metric that no cell should exceed: the smallest change that this system promises to
    detect. Default: twice the floor."""

    def floor(self, metric: str) -> float:
        """Return the smallest limit of *metric*, as a fraction."""
        return self.floors.get(metric, METRICS[metric].floor)

    def promise(self, metric: str) -> float:
        """Return the largest promised limit of *metric*, as a fraction."""
        return self.sees.get(metric, 2 * self.floor(metric))

    @property
    def all_floors(self) -> dict[str, float]:
        """Floor of every metric that is judged."""
        return {name: self.floor(name) for name in METRICS.times}


Fraction = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanity:
    """Limits above which a run is invalid on this system."""

    max_preemptions_per_request: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.1
    """Preemptions of a decode instance per request: each makes it prefill again."""
    max_prefilled_again_share: Fraction = 0.01
    """Share of prompt tokens, without each prompt's last, that decode instances compute again."""


ClientKind = Literal["vllm", "vllm-command", "precise"]
CLIENTS_OF_VLLM: tuple[ClientKind, ...] = ("vllm", "vllm-command")
"""Clients that are part of vLLM: they run where vLLM is installed, also in a container."""
UNNAMED_CLIENT: ClientKind = "vllm-command"
"""Client of records and references that do not name theirs: the only one in earlier releases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSpec:
    """The benchmark client."""

    client: ClientKind | None = None
    """``vllm``: vLLM's client, in one process for all cells; ``vllm-command``: the command
    ``vllm bench serve`` for each cell; ``precise``: takes times at the socket. None for ``vllm``,
    or for ``precise`` with an attached endpoint if vLLM is not installed."""
    python: Text | None = None
    """Python of another environment, whose vLLM is the client; None for that of the servers."""
    args: tuple[str, ...] = ()
    """Further arguments of ``vllm bench serve``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSpec:
    """Settings of ``vllm-router``."""

    args: tuple[str, ...] = ()
    """Further arguments; ``--policy`` replaces the default policy."""
    extra_flags: tuple[str, ...] = ()
    """Flags of this router that are in no release known to pytest-pdserve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One kind of machine and fabric; ``baselines/<name>/system.toml``."""

    name: str
    """Name of its folder in ``baselines``."""
    source: str
    """System file."""
    description: Text
    """Description in one line."""
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
    """How runs are judged."""
    sanity: Sanity = field(default_factory=Sanity)
    """Limits of valid runs."""
    figures: Text | None = None
    """File of figures in the folder of the system file, by which claims are judged instead of
    measurements; None for a system that is measured."""
    simulated: bool = False
    """True if its backend simulates servers."""
    tables: Mapping[str, Any] = field(default_factory=dict)
    """Tables of its backend, each as a dataclass of the backend."""
    tensor_parallel: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """GPUs per engine for topologies without a ``-tp`` suffix; None for all GPUs of a node."""
    env: Variables = field(default_factory=dict)
    """Environment of every server process."""
    pd_env: Variables = field(default_factory=dict)
    """Environment of instances that move KV caches, in addition to :attr:`env`."""
    pass_env: tuple[VariableName, ...] = ()
    """Names of variables that instances and the client get from the session's environment; their
    values are never written."""
    router: RouterSpec = field(default_factory=RouterSpec)
    """The router."""
    bench: BenchSpec = field(default_factory=BenchSpec)
    """The benchmark client."""
    transfer: TransferSpec = field(default_factory=TransferSpec)
    """Transfers between nodes without a model."""
    stack: StackSpec = field(default_factory=StackSpec)
    """Settings for building environments with other versions."""

    def program(self, role: str) -> str:
        """Return the program that runs ``serve`` for instances of *role*."""
        return self.model.roles.get(role, RoleServing()).program or self.programs.vllm

    def revision(self, role: str) -> str | None:
        """Return the folder of the revision that *role* serves; None for the model itself."""
        return self.model.roles.get(role, RoleServing()).revision

    def serve_args(self, role: str) -> tuple[str, ...]:
        """Return the arguments of ``vllm serve`` for instances of *role*."""
        own = self.model.roles.get(role, RoleServing())
        return (*self.model.serve_args, *own.serve_args)

    def role_env(self, role: str) -> Mapping[str, str]:
        """Return the additional environment of instances of *role*."""
        return self.model.roles.get(role, RoleServing()).env

    def kv_extra_config(self, role: str) -> Extra:
        """Return the extra configuration of the KV connector of *role*."""
        own = self.kv_transfer.roles.get(role, RoleTransfer())
        return {**self.kv_transfer.extra_config, **own.extra_config}

    def table(self, name: str, kind: type[T]) -> T:
        """Return the backend's table *name*; its defaults if it is not in the file."""
        table = self.tables.get(name)
        return table if isinstance(table, kind) else kind()

    def check(self) -> None:
        """Raise if settings contradict each other; single keys are checked by the schema.

        :raises ConfigError: if the sweep's lengths cannot be divided, containers contradict
            themselves, or a variable is both passed through and set.
        """
        self.sweep.points()
        self.container.check()
        self._check_model()
        self._check_passed()
        self._check_extra()

    def _check_model(self) -> None:
        """Raise if the system has no model, or two."""
        if not self.model.path and self.model.shape is None:
            raise ConfigError(
                "/model: names no model; write path = a folder or hub name, or shape = "
                "'deepseek-v2-lite' for a model of that size with random weights"
            )
        if self.model.path and self.model.shape is not None:
            raise ConfigError(
                f"/model: path = {self.model.path!r} and shape = {self.model.shape!r} name two "
                "models; remove one"
            )

    def _check_extra(self) -> None:
        """Raise if a number of the KV connector's arguments cannot be written as JSON."""
        tables = {"kv_transfer": self.kv_transfer.extra_config}
        tables |= {f"kv_transfer/{r}": t.extra_config for r, t in self.kv_transfer.roles.items()}
        for table, extra in tables.items():
            for name, value in extra.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise ConfigError(
                        f"/{table}/extra_config/{name}: {value}, expected a finite number"
                    )

    def _check_passed(self) -> None:
        """Raise if a variable to pass through is set by the session or the system file."""
        tables = {"env": self.env, "pd_env": self.pd_env}
        tables |= {f"model/{role}/env": own.env for role, own in self.model.roles.items()}
        for position, name in enumerate(self.pass_env):
            pointer = f"/pass_env/{position}: {name!r}"
            if name in SESSION_KEYS:
                raise ConfigError(
                    f"{pointer} is set by the session, which makes the key; remove it"
                )
            for table in (table for table, env in tables.items() if name in env):
                raise ConfigError(f"{pointer} is set in /{table} too; remove one of the two")
