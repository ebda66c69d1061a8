"""Systems: what kind of machine serves, with which model, transfer and limits."""

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
"""Eleven days at most: no call of the operating system waits for more than 24."""
Gib = Annotated[float, Meta(ge=0, le=1_000_000)]
Port = Annotated[int, Meta(ge=1, le=65535)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(?![\s\S])")]
Variables = Mapping[VariableName, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The machines of a system."""

    kind: Text | None = None
    """Name of the backend that provides servers; None where there are none, only figures."""
    nodes: Annotated[int, Meta(ge=1, le=10_000)]
    """Nodes; on a local system, slots of this machine."""
    gpus_per_node: Annotated[int, Meta(ge=1, le=1024)]
    """GPUs of a node; a CPU slot counts as one."""
    device: Literal["cpu", "gpu"] | None = None
    """What instances compute on. On a local system ``gpu`` gives each slot GPUs of its own; None
    leaves GPUs to vLLM."""
    share_engines: bool = False
    """Whether one start of instances serves every topology whose instances are alike but for their
    role; ``--pdserve-share-engines`` sets it."""
    shared_host: bool = False
    """Whether all nodes are one machine, so that instances compete for its cores."""
    memory_per_instance_gib: Gib = 0.0
    """Memory that one instance needs at most, GiB; 0 is not checked."""
    bind_host: Text | None = None
    """Address that servers listen on, e.g. ``0.0.0.0`` for all of a node; None for that of the
    chosen interface alone: the router asks nobody for a key."""
    price_per_gpu_hour: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    """What a GPU costs by the hour, held by a session; None where nobody says."""
    currency: Text = "USD"
    """Of the price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortScheme:
    """Where ports are looked for; each kind goes up from its base to the first that is free."""

    http: Port = 8000
    """Base for instances and router."""
    side_channel: Port = 5600
    """Base for the NIXL side channel, which exchanges agent metadata."""
    rpc: Port = 13345
    """Base for the data-parallel RPC of a group."""
    span: Annotated[int, Meta(ge=1, le=64_512)] = 1000
    """Ports of each kind that may be tried."""


Extra = Mapping[Text, str | int | float | bool]
FABRIC_LIBRARIES = "fabric"
"""What ``[kv_transfer] libraries`` writes for the folder that ``pdserve fabric install`` makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleServing:
    """What instances of one role are given beside what all are: ``[model.decode]``."""

    serve_args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``."""
    env: Variables = field(default_factory=dict)
    """Further environment."""
    program: Text | None = None
    """Program that runs ``serve`` for this role; None takes ``[programs] vllm``."""
    revision: Text | None = None
    """Folder whose ``model`` is served for this role under the path of the system's: another
    revision of the same model. The program must then be a path, or be on PATH."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTransfer:
    """What the KV connector of one role is given beside what all are: ``[kv_transfer.decode]``."""

    extra_config: Extra = field(default_factory=dict)
    """Further keys of ``kv_connector_extra_config``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is served."""

    path: Text = ""
    """Folder or hub name, as ``vllm serve`` takes it; ``tiny`` is made on the spot. Empty where
    :attr:`shape` is given."""
    shape: Text | None = None
    """Model whose size is served with random weights, in place of :attr:`path`: a name, e.g.
    ``deepseek-v2-lite``, or a folder with a ``config.json``."""
    serve_args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``, for every instance."""
    roles: Mapping[str, RoleServing] = field(default_factory=dict)
    """By role; in the file a table for each, ``[model.decode]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Executables; a bare name is looked for beside this Python, then on PATH."""

    vllm: Text = "vllm"
    """Runs ``serve`` and ``bench serve``."""
    router: Text = "vllm-router"
    """The router."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """How the KV cache moves from prefill to decode."""

    connector: Text = "NixlConnector"
    """vLLM's KV connector."""
    backend: Literal["LIBFABRIC", "UCX"] = "LIBFABRIC"
    """NIXL backend: ``LIBFABRIC`` or ``UCX``."""
    buffer_device: Text | None = None
    """``kv_buffer_device``; None keeps vLLM's default."""
    libraries: Text | None = None
    """Where instances have NIXL and libfabric from: ``fabric`` is the folder that ``pdserve fabric
    install`` makes, a path another such folder; None leaves it to the environment."""
    load_failure_policy: Literal["fail", "recompute"] = "fail"
    """``fail`` shows a lost transfer as an error; ``recompute`` would hide it."""
    extra_config: Extra = field(default_factory=dict)
    """Further keys of ``kv_connector_extra_config``, e.g. ``kv_lease_duration``."""
    roles: Mapping[str, RoleTransfer] = field(default_factory=dict)
    """By role; in the file a table for each, ``[kv_transfer.decode]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, seconds."""

    ready_s: Seconds = 1800.0
    """From start to all instances healthy (the article's launcher: 1800 s)."""
    warmup_s: Seconds = 300.0
    """For one warm-up request."""
    bench_start_s: Seconds = 120.0
    """For the benchmark client to start and stop, beside the work asked."""
    slowest_tok_s: Seconds = 50.0
    """Below this rate, tokens/s of prompt and output together, a benchmark counts as hung."""
    stop_s: Seconds = 15.0
    """From SIGTERM to SIGKILL of a process group."""


Floors = Mapping[str, Annotated[float, Meta(gt=0, le=10)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How runs on this system are judged."""

    host_references: bool = False
    """Whether each host keeps references of its own, in the user's state folder, instead of the
    system's one baseline."""
    claims: Literal["enforce", "report"] = "enforce"
    """``report`` shows claims with their numbers and never fails on them."""
    max_reruns: Annotated[int, Meta(ge=0, le=100_000)] = 48
    """Runs of suspicious cells on fresh starts that one session may make."""
    floors: Floors = field(default_factory=dict)
    """Metric and least limit, as a fraction of worse by ratio, where it is not the metric's own:
    about five times the metric's spread on this system."""
    sees: Floors = field(default_factory=dict)
    """Metric and limit that a cell should not exceed: what this system promises to see. Default:
    twice the floor."""

    def floor(self, metric: str) -> float:
        """Return the least limit of *metric*, as a fraction."""
        return self.floors.get(metric, METRICS[metric].floor)

    def promise(self, metric: str) -> float:
        """Return the largest limit of *metric* that the system promises, as a fraction."""
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
    """Preemptions of a decode instance per request: each prefills again there."""
    max_prefilled_again_share: Fraction = 0.01
    """Share of prompt tokens, without each prompt's last, that decode instances compute."""


ClientKind = Literal["vllm", "vllm-command", "precise"]
CLIENTS_OF_VLLM: tuple[ClientKind, ...] = ("vllm", "vllm-command")
"""Clients that are a part of vLLM: they run where it is installed, in an image too."""
UNNAMED_CLIENT: ClientKind = "vllm-command"
"""Client of records and references that do not name theirs: the only one of earlier releases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSpec:
    """The benchmark client."""

    client: ClientKind | None = None
    """``vllm``: vLLM's own client, in one process for all cells; ``vllm-command``: the command
    ``vllm bench serve`` for each cell; ``precise``: times are taken at the socket. None: ``vllm``,
    or ``precise`` for an endpoint that is up where vLLM is not installed."""
    python: Text | None = None
    """Python of another environment, whose vLLM is the client; None takes that of the servers."""
    args: tuple[str, ...] = ()
    """Further arguments, as on the command line of ``vllm bench serve``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSpec:
    """What ``vllm-router`` is given beside what the plan sets."""

    args: tuple[str, ...] = ()
    """Further arguments; ``--policy`` replaces the plan's own."""
    extra_flags: tuple[str, ...] = ()
    """Flags that this router knows and no release known to pytest-pdserve does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One kind of machine and fabric; ``baselines/<name>/system.toml``."""

    name: str
    """Folder under ``baselines``."""
    source: str
    """File that says so."""
    description: Text
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
    """How runs are judged."""
    sanity: Sanity = field(default_factory=Sanity)
    """What makes a run invalid."""
    figures: Text | None = None
    """File of figures beside the system file, which claims are judged by where nothing is measured;
    None where there are none."""
    simulated: bool = False
    """Whether its backend only computes, and no server ever runs."""
    tables: Mapping[str, Any] = field(default_factory=dict)
    """Tables that only its backend reads, each as the backend's own dataclass."""
    tensor_parallel: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """GPUs per engine where the topology's name does not say; None takes the whole node."""
    env: Variables = field(default_factory=dict)
    """Environment of every server process."""
    pd_env: Variables = field(default_factory=dict)
    """Environment of instances that take part in KV transfer, beside :attr:`env`."""
    pass_env: tuple[VariableName, ...] = ()
    """Names of variables that instances and the client get from the environment of the session;
    their values are never written."""
    router: RouterSpec = field(default_factory=RouterSpec)
    """The router."""
    bench: BenchSpec = field(default_factory=BenchSpec)
    """The benchmark client."""
    transfer: TransferSpec = field(default_factory=TransferSpec)
    """What is measured between nodes without a model."""
    stack: StackSpec = field(default_factory=StackSpec)
    """How environments are built for other versions of what serves."""

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
        """Return what instances of *role* have in their environment beside all others."""
        return self.model.roles.get(role, RoleServing()).env

    def kv_extra_config(self, role: str) -> Extra:
        """Return the extra configuration of the KV connector of *role*."""
        own = self.kv_transfer.roles.get(role, RoleTransfer())
        return {**self.kv_transfer.extra_config, **own.extra_config}

    def table(self, name: str, kind: type[T]) -> T:
        """Return the backend's own table called *name*; its defaults where it is not given."""
        found = self.tables.get(name)
        return found if isinstance(found, kind) else kind()

    def check(self) -> None:
        """Refuse what does not go together; each key alone is the schema's business.

        :raises ConfigError: if the sweep's lengths cannot be divided, containers contradict
            themselves, or a variable is both passed through and set.
        """
        self.sweep.points()
        self.container.check()
        self._check_model()
        self._check_passed()
        self._check_extra()

    def _check_model(self) -> None:
        """Refuse a system that names no model, or two."""
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
        """Refuse numbers that the JSON of the KV connector's arguments cannot hold."""
        tables = {"kv_transfer": self.kv_transfer.extra_config}
        tables |= {f"kv_transfer/{r}": t.extra_config for r, t in self.kv_transfer.roles.items()}
        for table, extra in tables.items():
            for name, value in extra.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise ConfigError(
                        f"/{table}/extra_config/{name}: {value}, expected a finite number"
                    )

    def _check_passed(self) -> None:
        """Refuse variables to pass through that the session or this file sets itself."""
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
