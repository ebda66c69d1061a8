"""Run records: what was measured, with everything needed to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Any
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.fabric import FabricRun
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import UNNAMED_CLIENT
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.workload import Workload

Text = Annotated[str, Meta(min_length=1)]
Value = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Compiled = Literal["cold", "warm"]
Severity = Literal["invalid", "unproven", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that sanity has to say of a run."""

    check: str
    """Which check, e.g. ``completed``."""
    severity: Severity
    """``invalid``: not judged; ``unproven``: could not be looked at; ``note``: for information."""
    message: str
    """One sentence with the numbers."""
    voids: tuple[str, ...] = ()
    """Metrics that must not be judged because of it."""

    @property
    def is_note(self) -> bool:
        """Whether it is for information."""
        return self.severity == "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCounts:
    """What one instance counted between two scrapes of ``/metrics``; summed over its engines."""

    name: str
    """Instance."""
    role: str
    """Name of its role."""
    requests: float | None = None
    """``vllm:request_success_total``. For this and the counters below, None means not shown, not
    0."""
    ended_abnormally: float | None = None
    """Of these, what ended with ``abort``, ``error`` or ``repetition``."""
    prompt_tokens: float | None = None
    """``vllm:prompt_tokens_total``."""
    generation_tokens: float | None = None
    """``vllm:generation_tokens_total``."""
    prefix_cache_hits: float | None = None
    """Tokens, ``vllm:prefix_cache_hits_total``."""
    preemptions: float | None = None
    """``vllm:num_preemptions_total``."""
    prompt_tokens_computed: float | None = None
    """Prompt tokens that it computed itself, ``vllm:prompt_tokens_by_source_total``."""
    prompt_tokens_received: float | None = None
    """Prompt tokens that it got over a KV transfer, likewise."""
    kv_transfers: float | None = None
    """``vllm:nixl_xfer_time_seconds_count``."""
    kv_bytes: float | None = None
    """Bytes, ``vllm:nixl_bytes_transferred_sum``."""
    kv_transfer_s: float | None = None
    """Seconds of all transfers, waiting included, ``vllm:nixl_xfer_time_seconds_sum``."""
    kv_post_s: float | None = None
    """Seconds of posting them, ``vllm:nixl_post_time_seconds_sum``."""
    kv_descriptors: float | None = None
    """Pieces that they were made of, ``vllm:nixl_num_descriptors_sum``."""
    kv_failed: float | None = None
    """``vllm:nixl_num_failed_transfers_total``; from vLLM 0.32 on with failed handshakes and
    notifications."""
    kv_unnotified: float | None = None
    """``vllm:nixl_num_failed_notifications_total``."""
    kv_expired: float | None = None
    """``vllm:nixl_num_kv_expired_reqs_total``."""
    kv_read_late: float | None = None
    """``vllm:nixl_num_notifications_after_expiry_total``: blocks that another request may have been
    given before they were read."""
    block_size: int | None = None
    """KV block, tokens, from ``vllm:cache_config_info``."""
    restarted: bool | None = None
    """Whether the process start time changed between the scrapes; None if one did not show it, and
    the process is not the session's own."""
    stall_s: float | None = None
    """Longest time, seconds, without a token while an engine had requests, sampled once a second: a
    lower bound; None if not sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """How busy the client's node was, from the client's start to its end."""

    cores: Annotated[int, Meta(ge=1)]
    """Cores of the node."""
    load_1m: float
    """Load average over a minute, at the end."""
    steal: float
    """Share of the cores' time that the hypervisor gave to other machines."""
    busy_cores: float
    """Cores in use, on average."""
    other_cores: float | None = None
    """Cores that processes used which are not this session's; None where that cannot be told apart,
    as of containers."""
    other_processes: tuple[str, ...] = ()
    """The busiest of these: name, id, cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """One process that took part."""

    name: str
    """E.g. ``decode[1]``, ``router``."""
    node: str
    """Where it ran."""
    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Exact argument list."""
    env: Mapping[str, str]
    """Environment that pdserve set; secrets are left out."""
    log: str
    """Log file, relative to the run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run: a workload on a topology of a system, once."""

    session: SessionRef
    """Session that made it."""
    system: Text
    """System's name."""
    simulated: bool
    """Whether no server ever ran."""
    fingerprint: str
    """Digest of :attr:`host`."""
    topology: Text
    """Topology id."""
    workload: Workload
    """What was asked."""
    repeat: Annotated[int, Meta(ge=0)]
    """Counts runs of one cell from 0."""
    start: Annotated[int, Meta(ge=0)] | None
    """Start of the servers that it ran on, counted from 0 in the session; None where nobody knows:
    such a run is taken for a start of its own."""
    shared_start: Annotated[int, Meta(ge=0)] | None = None
    """Start of instances that several topologies shared, counted from 0 in the session; None where
    they were this topology's own."""
    started_at: Utc
    """UTC, ISO 8601."""
    finished_at: Utc
    """UTC, ISO 8601."""
    versions: Mapping[str, str]
    """Package or component and version; what is unknown is absent."""
    host: Mapping[str, str]
    """Hardware, and all in the system file that changes a measurement."""
    cluster: Mapping[str, Any] = field(default_factory=dict)
    """Cluster kind, and what is particular to the allocation, e.g. ``job_id``."""
    nodes: tuple[str, ...]
    """Nodes in use."""
    processes: tuple[ProcessRecord, ...]
    """Servers and client."""
    endpoint: str
    """URL that the client asked."""
    client_kind: Text = UNNAMED_CLIENT
    """Kind of the benchmark client: ``[bench] client``, or the tool that an imported result is of;
    values of different kinds are not compared."""
    client: Mapping[str, Any]
    """The client's result as it wrote it, without its lists."""
    metrics: Mapping[str, Value]
    """Metrics by name."""
    served: tuple[ServedCounts, ...]
    """Counts of each instance during the run."""
    timings_s: Mapping[str, Annotated[float, Meta(ge=0)]]
    """Seconds of each phase: ready and warmup of the start, warm (for this run), client, bench (the
    load in it), scrape."""
    findings: tuple[Finding, ...]
    """What sanity says."""
    requests: str | None
    """Parquet file of one row per request, beside the record."""
    warm_load: Mapping[str, Annotated[float, Meta(ge=0)]] = field(default_factory=dict)
    """What the servers were warmed with before: requests, prompt_tokens and output_tokens of the
    first load, longer_requests and longer_prompt_tokens of what followed, seconds of all."""
    router: Mapping[str, float] = field(default_factory=dict)
    """What the router counted during the run: its ``vllm_router_*_total``, over workers and routes;
    what it did not count is absent."""
    prefix_cache_reset: bool | None = None
    """Whether the prefix caches were emptied before the run; None if no instance offers it."""
    client_node: NodeLoad | None = None
    """How busy the client's node was; None where that was not seen."""

    gpus: tuple[GpuRun, ...] = ()
    """GPUs of the instances, before, during and after the load; empty where they were not
    watched."""
    compiled: Compiled | None = None
    """Whether compiled kernels were there before the start (``warm``) or were compiled in it; None
    where no log says it."""
    client_offset_ms: Mapping[str, Value] = field(default_factory=dict)
    """By metric, ms that the client reports too much at such a load, as ``pdserve calibrate
    --client`` found; empty where that was not measured."""
    transfers: tuple[RunningTransfer, ...] = ()
    """KV transfers between its instances after their start, one at a time; empty where the system
    promises no speed."""
    fabric: tuple[FabricRun, ...] = ()
    """RDMA interfaces of the nodes, such as EFA, during the load; empty where there are none."""

    @property
    def cell(self) -> str:
        """Topology and workload, for messages."""
        return f"{self.topology}, {self.workload.id}, {self.system}"

    @property
    def invalid(self) -> tuple[Finding, ...]:
        """Findings that make the run worthless."""
        return tuple(f for f in self.findings if f.severity == "invalid")

    @property
    def unproven(self) -> tuple[Finding, ...]:
        """Findings of what could not be known."""
        return tuple(f for f in self.findings if f.severity == "unproven")

    @property
    def voided(self) -> frozenset[str]:
        """Metrics that must not be judged."""
        return frozenset(metric for finding in self.findings for metric in finding.voids)

    def value(self, metric: str) -> float | None:
        """Return the value to judge of *metric*; None if it is missing or voided."""
        return None if metric in self.voided else self.metrics.get(metric)


def values_of(records: Sequence[Record], metric: str) -> tuple[float, ...] | None:
    """Return the values to judge of *metric*, one a run; None if a run has none."""
    values = [record.value(metric) for record in records]
    present = tuple(value for value in values if value is not None)
    return present if len(present) == len(values) else None


def voided_in(records: Sequence[Record]) -> frozenset[str]:
    """Return the metrics that a finding of any of *records* voids."""
    return frozenset[str]().union(*(record.voided for record in records))
