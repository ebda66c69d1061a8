"""Run records: what was measured, with everything needed to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import Literal
from typing import Self

from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Role
from pytest_pdserve.values.workload import Workload

SCHEMA_VERSION = 1

_TABLES = ("versions", "host", "cluster", "client", "metrics", "timings_s")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCounts:
    """What one instance counted between two scrapes of ``/metrics``; summed over its engines."""

    name: str
    """Instance."""
    role: str
    """``prefill``, ``decode`` or ``aggregated``."""
    requests: float
    """``vllm:request_success_total``."""
    prompt_tokens: float
    """``vllm:prompt_tokens_total``."""
    generation_tokens: float
    """``vllm:generation_tokens_total``."""
    prefix_cache_hits: float | None
    """Tokens, ``vllm:prefix_cache_hits_total``; None where the version has no such counter."""
    preemptions: float | None
    """``vllm:num_preemptions_total``."""
    kv_transfers: float | None
    """``vllm:nixl_xfer_time_seconds_count``; None where the instance moves no KV cache."""
    kv_bytes: float | None
    """Bytes, ``vllm:nixl_bytes_transferred_sum``."""
    kv_transfer_s: float | None
    """Seconds of all transfers, ``vllm:nixl_xfer_time_seconds_sum``."""
    kv_failed: float | None
    """``vllm:nixl_num_failed_transfers_total``."""
    kv_expired: float | None
    """``vllm:nixl_num_kv_expired_reqs_total``."""
    block_size: int | None
    """KV block, tokens, from ``vllm:cache_config_info``."""
    restarted: bool | None
    """Whether the process start time changed between the scrapes; None if one did not show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """One process that took part."""

    name: str
    """E.g. ``decode[1]``, ``router``."""
    node: str
    """Where it ran."""
    argv: tuple[str, ...]
    """Exact argument list."""
    env: tuple[tuple[str, str], ...]
    """Environment that pdserve set; secrets are left out."""
    log: str
    """Log file, relative to the run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run: a workload on a topology of a system, once."""

    run_id: str
    """Session, e.g. ``20260822T101500-p5-efa``."""
    system: str
    """System's name."""
    simulated: bool
    """Whether no server ever ran."""
    fingerprint: str
    """Digest of the host's hardware and the system file's measurement-relevant parts."""
    topology: str
    """Topology id."""
    workload: Workload
    """What was asked."""
    repeat: int
    """Counts runs of one cell from 0."""
    started_at: str
    """UTC, ISO 8601."""
    finished_at: str
    """UTC, ISO 8601."""
    versions: tuple[tuple[str, str], ...]
    """Package or component and version; what is unknown is absent."""
    host: tuple[tuple[str, str], ...]
    """What the fingerprint was made of."""
    cluster: tuple[tuple[str, Any], ...] = ()
    """Cluster kind, and what is particular to the allocation, e.g. ``job_id``; empty before 0.2."""
    nodes: tuple[str, ...]
    """Nodes in use."""
    processes: tuple[ProcessRecord, ...]
    """Servers and client."""
    endpoint: str
    """URL that the client asked."""
    client: tuple[tuple[str, Any], ...]
    """The client's result as it wrote it, without its lists."""
    metrics: tuple[tuple[str, float], ...]
    """Judged metrics by name."""
    served: tuple[ServedCounts, ...]
    """Counts of each instance during the run."""
    timings_s: tuple[tuple[str, float], ...]
    """Seconds of each phase: ready, warmup, client, bench."""
    findings: tuple[Finding, ...]
    """What sanity says."""
    requests: str | None
    """Parquet file of one row per request, beside the record."""

    @property
    def cell(self) -> str:
        """Topology and workload, for messages."""
        return f"{self.topology}, {self.workload.id}, {self.system}"

    @property
    def invalid(self) -> tuple[Finding, ...]:
        """Findings that make the run worthless."""
        return tuple(f for f in self.findings if f.severity == "invalid")

    @property
    def voided(self) -> frozenset[str]:
        """Metrics that must not be judged."""
        return frozenset(metric for finding in self.findings for metric in finding.voids)

    def to_json(self) -> dict[str, Any]:
        """The record as its schema has it."""
        data = {name: getattr(self, name) for name in self.__slots__}
        for name in _TABLES:
            data[name] = dict(data[name])
        data["workload"] = self.workload.to_json()
        data["nodes"] = list(self.nodes)
        data["processes"] = [
            {**asdict(p), "argv": list(p.argv), "env": dict(p.env)} for p in self.processes
        ]
        data["served"] = [asdict(counts) for counts in self.served]
        data["findings"] = [{**asdict(f), "voids": list(f.voids)} for f in self.findings]
        return {"schema_version": SCHEMA_VERSION, **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote and the schema has admitted."""
        fields = {name: data[name] for name in cls.__slots__ if name in data}
        for name in _TABLES:
            fields[name] = tuple(data.get(name, {}).items())
        fields["workload"] = Workload.from_json(data["workload"])
        fields["nodes"] = tuple(data["nodes"])
        fields["processes"] = tuple(
            ProcessRecord(**{**p, "argv": tuple(p["argv"]), "env": tuple(p["env"].items())})
            for p in data["processes"]
        )
        fields["served"] = tuple(ServedCounts(**counts) for counts in data["served"])
        fields["findings"] = tuple(
            Finding(**{**f, "voids": tuple(f["voids"])}) for f in data["findings"]
        )
        return cls(**fields)


Sitting = tuple[str, Mapping[str, Any]]
"""A session as far as its night goes: run id, and what it says of its cluster."""


def night_of(session: Sitting, newest: Sitting) -> str:
    """Night of a session by its date, counted back from *newest* in steps of 24 h.

    Sessions that began nearer than half a day to such a step are of one night: they have more in
    common than others. A simulated night is the one that the system file named; a run id that does
    not begin with a time is a night of its own.
    """
    run_id, cluster = session
    if "night" in cluster:
        return f"simulated night {cluster['night']}"
    began, last = start_of_run(run_id), start_of_run(newest[0])
    if began is None or last is None:
        return run_id
    return (last - timedelta(days=round((last - began) / timedelta(days=1)))).date().isoformat()


def start_of_run(run_id: str) -> datetime | None:
    """When a session began, as its name says, UTC; None if it does not say."""
    try:
        return datetime.strptime(f"{run_id[:15]}Z", "%Y%m%dT%H%M%S%z")
    except ValueError:
        return None


def result_metrics(
    result: BenchResult, served: Sequence[ServedCounts]
) -> tuple[tuple[str, float], ...]:
    """The client's metrics, and the counts that hold on any machine.

    KV counts are there only if decode instances showed NIXL counters.
    """
    counts: dict[str, float] = {
        "completed": result.completed,
        "total_input_tokens": result.total_input_tokens,
        "total_output_tokens": result.total_output_tokens,
    }
    if result.failed is not None:
        counts["failed"] = result.failed
    decodes = [c for c in served if c.role == Role.DECODE and c.kv_transfers is not None]
    if decodes:
        transfers = sum(c.kv_transfers or 0.0 for c in decodes)
        counts["kv_transfers"] = transfers
        failed = [c.kv_failed for c in served if c.kv_failed is not None]
        if failed:
            counts["kv_failed_transfers"] = sum(failed)
        if transfers and result.completed:
            moved = sum(c.kv_bytes or 0.0 for c in decodes)
            counts["kv_bytes_per_request"] = moved / result.completed
    return (*result.metrics, *((name, float(value)) for name, value in counts.items()))
