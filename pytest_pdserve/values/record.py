"""Run records: the measurements of a run, with everything that is needed to verify them."""

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
    """A finding of a sanity check about a run."""

    check: str
    """Name of the check, e.g. ``completed``."""
    severity: Severity
    """``invalid``: the run is not judged; ``unproven``: could not be checked; ``note``: for
    information."""
    message: str
    """One sentence, with numbers."""
    voids: tuple[str, ...] = ()
    """Metrics that must not be judged because of it."""

    @property
    def is_note(self) -> bool:
        """True if its severity is ``note``."""
        return self.severity == "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCounts:
    """Counts of one instance between two scrapes of ``/metrics``, summed over its engines.

    None means that the instance lacks the counter, not 0.
    """

    name: str
    """Name of the instance."""
    role: str
    """Name of its role."""
    requests: float | None = None
    """``vllm:request_success_total``."""
    ended_abnormally: float | None = None
    """Requests that ended with ``abort``, ``error`` or ``repetition``."""
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
    """Prompt tokens that it received by KV transfer, likewise."""
    kv_transfers: float | None = None
    """``vllm:nixl_xfer_time_seconds_count``."""
    kv_bytes: float | None = None
    """Bytes, ``vllm:nixl_bytes_transferred_sum``."""
    kv_transfer_s: float | None = None
    """Seconds of all transfers, with waiting, ``vllm:nixl_xfer_time_seconds_sum``."""
    kv_post_s: float | None = None
    """Seconds of posting all transfers, ``vllm:nixl_post_time_seconds_sum``."""
    kv_descriptors: float | None = None
    """Descriptors of all transfers, ``vllm:nixl_num_descriptors_sum``."""
    kv_failed: float | None = None
    """``vllm:nixl_num_failed_transfers_total``; since vLLM 0.32 with failed handshakes and
    notifications."""
    kv_unnotified: float | None = None
    """``vllm:nixl_num_failed_notifications_total``."""
    kv_expired: float | None = None
    """``vllm:nixl_num_kv_expired_reqs_total``."""
    kv_read_late: float | None = None
    """``vllm:nixl_num_notifications_after_expiry_total``: blocks that another request may have
    reused before they were read."""
    block_size: int | None = None
    """Tokens of a KV block, from ``vllm:cache_config_info``."""
    restarted: bool | None = None
    """True if the process restarted between the scrapes, by its start time; None if it has none and
    was not started by the session."""
    stall_s: float | None = None
    """Longest time, seconds, without a token while an engine had requests, sampled once a second: a
    lower bound; None if not sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """Load of the client's node, from the client's start to its end."""

    cores: Annotated[int, Meta(ge=1)]
    """Number of cores of the node."""
    load_1m: float
    """Load average over one minute, at the end."""
    steal: float
    """Steal time: share of the cores' time that the hypervisor gave to other machines."""
    busy_cores: float
    """Cores in use, on average."""
    other_cores: float | None = None
    """Cores used by processes of others; None if these cannot be identified, e.g. in containers."""
    other_processes: tuple[str, ...] = ()
    """Busiest of these processes: name, id, cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A server or client process of a run."""

    name: str
    """Name, e.g. ``decode[1]`` or ``router``."""
    node: str
    """Node on which it ran."""
    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Exact argument list."""
    env: Mapping[str, str]
    """Environment set by pdserve, without secrets."""
    log: str
    """Log file, relative to the run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run: one measurement of a workload on a topology of a system."""

    session: SessionRef
    """Session of the run."""
    system: Text
    """Name of the system."""
    simulated: bool
    """True if it was simulated, without servers."""
    fingerprint: str
    """Digest of :attr:`host`."""
    topology: Text
    """Topology id."""
    workload: Workload
    """Load."""
    repeat: Annotated[int, Meta(ge=0)]
    """Number of the run of its cell, from 0."""
    start: Annotated[int, Meta(ge=0)] | None
    """Number of the start of its servers in the session, from 0; None if not known: then the run
    counts as a start of its own."""
    shared_start: Annotated[int, Meta(ge=0)] | None = None
    """Number of the start of shared instances in the session, from 0; None if the topology's
    instances are not shared."""
    started_at: Utc
    """Start of the run, UTC, ISO 8601."""
    finished_at: Utc
    """End of the run, UTC, ISO 8601."""
    versions: Mapping[str, str]
    """Version by package or component, as far as known."""
    host: Mapping[str, str]
    """Hardware, and all settings of the system file that change a measurement."""
    cluster: Mapping[str, Any] = field(default_factory=dict)
    """Backend, and properties of the allocation, e.g. ``job_id``."""
    nodes: tuple[str, ...]
    """Nodes in use."""
    processes: tuple[ProcessRecord, ...]
    """Servers and client."""
    endpoint: str
    """URL to which the client sent requests."""
    client_kind: Text = UNNAMED_CLIENT
    """Kind of the benchmark client: ``[bench] client``, or the tool of an imported result; values
    of different kinds are not compared."""
    client: Mapping[str, Any]
    """Result of the client as it wrote it, without lists."""
    metrics: Mapping[str, Value]
    """Values of metrics by name."""
    served: tuple[ServedCounts, ...]
    """Counts of each instance during the run."""
    timings_s: Mapping[str, Annotated[float, Meta(ge=0)]]
    """Seconds by phase: ready and warmup of the start, warm (for this run), client, bench (the
    load, part of client), scrape."""
    findings: tuple[Finding, ...]
    """Findings of sanity checks."""
    requests: str | None
    """Parquet file with one row per request, in the record's folder; None without one."""
    warm_load: Mapping[str, Annotated[float, Meta(ge=0)]] = field(default_factory=dict)
    """Warm-up requests before the run: requests, prompt_tokens and output_tokens of the first load,
    longer_requests and longer_prompt_tokens of later ones, seconds of all."""
    router: Mapping[str, float] = field(default_factory=dict)
    """Counts of the router during the run: its ``vllm_router_*_total``, summed over workers and
    routes, without those that are 0."""
    prefix_cache_reset: bool | None = None
    """True if the prefix caches were emptied before the run; None if no instance offers it."""
    client_node: NodeLoad | None = None
    """Load of the client's node; None if not known."""
    gpus: tuple[GpuRun, ...] = ()
    """GPUs of the instances, before, during and after the load; empty if not sampled."""
    compiled: Compiled | None = None
    """True if the servers loaded compiled kernels (``warm``) or compiled them at their start
    (``cold``); None if no log shows it."""
    client_offset_ms: Mapping[str, Value] = field(default_factory=dict)
    """Offset of the client by metric at such a load, reported minus true value, ms, from ``pdserve
    calibrate --client``; empty if not measured."""
    transfers: tuple[RunningTransfer, ...] = ()
    """KV transfers between its instances after their start, one at a time; empty if the system sets
    no minimum speed."""
    fabric: tuple[FabricRun, ...] = ()
    """RDMA interfaces of the nodes, such as EFA, during the load; empty without any."""

    @property
    def cell(self) -> str:
        """Topology, workload and system, for messages."""
        return f"{self.topology}, {self.workload.id}, {self.system}"

    @property
    def invalid(self) -> tuple[Finding, ...]:
        """Findings that make the run invalid."""
        return tuple(f for f in self.findings if f.severity == "invalid")

    @property
    def unproven(self) -> tuple[Finding, ...]:
        """Findings about checks that could not be made."""
        return tuple(f for f in self.findings if f.severity == "unproven")

    @property
    def voided(self) -> frozenset[str]:
        """Metrics that must not be judged."""
        return frozenset(metric for finding in self.findings for metric in finding.voids)

    def value(self, metric: str) -> float | None:
        """Return the value of *metric*; None if it is missing or voided."""
        return None if metric in self.voided else self.metrics.get(metric)


def values_of(records: Sequence[Record], metric: str) -> tuple[float, ...] | None:
    """Return the values of *metric*, one per run; None if it is missing or voided in a run."""
    values = [record.value(metric) for record in records]
    present = tuple(value for value in values if value is not None)
    return present if len(present) == len(values) else None


def voided_in(records: Sequence[Record]) -> frozenset[str]:
    """Return the metrics that a finding of any of *records* voids."""
    return frozenset[str]().union(*(record.voided for record in records))
