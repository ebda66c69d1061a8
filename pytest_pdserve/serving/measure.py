"""Measure a cell once: read counters, run the client, read counters again, write the record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Literal

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.plan.bench import bench_timeout
from pytest_pdserve.plan.bench import client_options
from pytest_pdserve.plan.bench import extra_requests
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.building import RunFacts
from pytest_pdserve.results.building import build_record
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.client import ClientRun
from pytest_pdserve.serving.client import Load
from pytest_pdserve.serving.client import Watch
from pytest_pdserve.serving.client import max_in_flight
from pytest_pdserve.serving.client import prompt_seed
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import load_vocabulary
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.run_progress import RunProgress
from pytest_pdserve.serving.run_progress import drawing
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import counted_between
from pytest_pdserve.serving.scrape import difference
from pytest_pdserve.serving.served import Served
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.errors import StuckError
from pytest_pdserve.values.fabric import FabricRun
from pytest_pdserve.values.fabric import fabric_runs
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.observation import ControlAnswers
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.observation import RepeatedAnswers
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.workload import Workload


@contextlib.contextmanager
def diagnosing_nodes(allocation: Allocation, progress: Progress) -> Iterator[None]:
    """Check the nodes when an error of servers is raised in the block.

    :raises AllocationError: instead of the error, if a node was lost.
    """
    try:
        yield
    except (LaunchError, NotReadyError, PathError, ClientError):
        with Heartbeat(progress, "checking the nodes"):
            allocation.diagnose()
        raise


def measure(
    deployment: Served,
    workload: Workload,
    *,
    repeat: int,
    start: int | None,
    store: RunStore,
    provenance: Provenance,
) -> tuple[Record, Path]:
    """Run *workload* once and write its record, even if the run is invalid.

    :param start: number of the servers' start, from 0.
    :returns: the record and its file.
    :raises AllocationError: if a node was lost during the run.
    :raises LaunchError: if a server has ended.
    :raises ClientError: if the client leaves no result.
    :raises StoreError: if the record cannot be written.
    """
    stem = store.stem(deployment.topology.id, workload, repeat)
    result_path = stem.with_name(f"{stem.name}.bench.json")
    shares = deployment.shared_start is not None
    seed = prompt_seed(workload, repeat, store.session, deployment.topology, shares=shares)
    ran = _run(deployment, workload, seed=seed, result_path=result_path)
    lost = _lost(deployment.allocation)
    seen = _observation(deployment, workload, ran)
    offsets = provenance.client_offsets
    if offsets is not None and offsets.is_of(provenance.host):
        seen = replace(seen, client_offset_ms=offsets.at(max_in_flight(workload)))
    facts = _facts(deployment, ran, store, repeat=repeat, start=start)
    findings = (*check_sanity(seen), *lost)
    findings = (*findings, *_logged(ran, findings))
    if (version := deployment.bench.version) is not None:
        provenance = replace(provenance, versions={**provenance.versions, "client": version})
    record, path = build_record(seen, facts, provenance, store, findings=findings)
    result_path.unlink(missing_ok=True)  # its values are in the record, its lists in the parquet
    if lost:
        raise AllocationError(f"{lost[0].message}; the run of {record.cell} is void: {path}")
    return record, path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Everything observed around a run that has ended."""

    started: datetime
    warm: Mapping[str, float]
    """Totals of the warm-up requests so far."""
    warm_s: float
    """Seconds of the warm-up for this run."""
    router: Mapping[str, float]
    """Counts of the router during the run."""
    kv_bytes: Mapping[int, float]
    """Bytes of KV cache by prompt length, where they were measured."""
    controls: ControlAnswers | None
    """Answers to other prompts, sent one by one; None if not needed."""
    repeated: RepeatedAnswers | None
    """Measured requests, sent again; None if answers are not greedy."""
    reset: bool | None
    """True if the prefix caches were emptied before; None if not offered."""
    stall_s: Mapping[str, float]
    """Longest stall in seconds by instance."""
    logged: str
    """Error that servers logged about failed requests; empty if there is none."""
    gpus: tuple[GpuRun, ...]
    """GPUs before, during and after the load."""
    fabric: tuple[FabricRun, ...]
    """RDMA interfaces during the load."""
    client: ClientRun
    before: Mapping[str, Counters]
    """Counters by instance."""
    after: Mapping[str, Counters]
    scraped: float
    """Monotonic time at which the last scrape began."""


def _run(deployment: Served, workload: Workload, *, seed: int, result_path: Path) -> _Run:
    """Run the client, and scrape the counters before and after it."""
    allocation = deployment.allocation
    load = _load(deployment, workload, seed=seed, result_path=result_path)
    deployment.bench.prepare([load])
    waiting = Heartbeat(deployment.progress, f"{workload.id}: warming up")
    with diagnosing_nodes(allocation, deployment.progress), waiting:
        warm, kv_bytes, warm_s = _warm(deployment, workload)
        reset = deployment.reset_prefix_caches()
        started = datetime.now(UTC)
        routed, before = deployment.scrape_router(), deployment.scrape()
        logs, sizes = deployment.logs, deployment.logs.sizes()
        wires = allocation.read_fabric()
        with deployment.watching_stalls() as stalls, allocation.watching_gpus() as gpus:
            run_progress = _progress(deployment, workload, before, stalls)
            waiting.now(lambda: str(run_progress))
            client = _client(deployment, load, run_progress)
        waiting.now(f"{workload.id}: reading counters")
        deployment.check_alive()
        scraped, after = time.monotonic(), deployment.scrape()
        fabric = fabric_runs(wires, allocation.read_fabric()) if wires else ()
        router = counted_between(routed, deployment.scrape_router())
        return _Run(
            started=started,
            warm=warm,
            warm_s=warm_s,
            router=router,
            kv_bytes=kv_bytes,
            controls=_controls(deployment, client),
            repeated=deployment.ask_again(workload, client.result),
            reset=reset,
            stall_s=stalls.longest_s,
            logged=logs.errors_since(sizes) if client.result.failed else "",
            gpus=gpus.runs,
            fabric=fabric,
            client=client,
            before=before,
            after=after,
            scraped=scraped,
        )


def _load(deployment: Served, workload: Workload, *, seed: int, result_path: Path) -> Load:
    return Load(
        workload=workload,
        system=deployment.system,
        seed=seed,
        base_url=deployment.url,
        result=result_path,
    )


def _warm(
    deployment: Served, workload: Workload
) -> tuple[Mapping[str, float], Mapping[int, float], float]:
    """Warm up for a run; return totals of warm-up requests, bytes of KV cache, and seconds."""
    deployment.check_alive()
    deployment.check_fits(workload)
    began = time.monotonic()
    warm, kv_bytes = deployment.warm_for(workload), deployment.probe_kv_bytes(workload)
    return warm, kv_bytes, time.monotonic() - began


def _progress(
    deployment: Served, workload: Workload, before: Mapping[str, Counters], stalls: Stalls
) -> RunProgress:
    return RunProgress(
        workload=workload,
        instances=deployment.instances,
        before=before,
        stalls=stalls,
        limit_s=bench_timeout(workload, deployment.system.limits),
    )


def _client(deployment: Served, load: Load, run_progress: RunProgress) -> ClientRun:
    """Run the client; if it fails on an attached endpoint, check whether that answers at all."""
    watch = Watch(
        limit_s=run_progress.limit_s,
        check_servers=deployment.check_alive,
        timeout_error=run_progress.timeout_error,
    )
    try:
        with drawing(deployment.progress, run_progress):
            return deployment.bench.run(load, watch)
    except StuckError:
        raise
    except ClientError as error:
        attached = deployment.allocation.endpoint is not None
        if attached and (fault := deployment.ask_controls().fault):
            raise ClientError(f"{error}\na single prompt, sent alone: {fault}") from error
        raise


def _controls(deployment: Served, client: ClientRun) -> ControlAnswers | None:
    """Send control prompts if neither the answers nor counters prove that answers are right."""
    unproven = deployment.allocation.endpoint is not None or not deployment.instances
    needed = client.result.answers_identical or unproven
    return deployment.ask_controls() if needed else None


def _observation(deployment: Served, workload: Workload, ran: _Run) -> Observation:
    system = deployment.system
    vllm, bench = deployment.vllm_version, deployment.bench
    served = tuple(_served(server, ran) for server in deployment.instances)
    return Observation(
        topology=deployment.topology,
        workload=workload,
        result=ran.client.result,
        served=served,
        instances=len(deployment.instances),
        kv_shape=load_kv_shape(system),
        kv_probed=ran.kv_bytes,
        router=ran.router,
        ranks=max((server.ranks for server in deployment.instances), default=1),
        options=client_options(workload, system),
        controls=ran.controls,
        repeated=ran.repeated,
        extra_expected=extra_requests(workload, system, bench.version or vllm, kind=bench.kind),
        vllm_version=vllm,
        sanity=system.sanity,
        client_cpu=ran.client.cpu,
        client_node=ran.client.node_load,
        gpus=ran.gpus,
        fabric=ran.fabric,
        why_speed_unproven=deployment.why_speed_unproven,
        vocabulary=load_vocabulary(system.model.path),
        foreign_tokenizer=deployment.foreign_tokenizer,
        earlier_requests=0.0 if ran.reset else _earlier(deployment, ran),
    )


def _served(server: Server, ran: _Run) -> ServedCounts:
    """Return the counts of an instance during the run.

    One of several API servers has no start time; a process that the session started and that still
    runs has not restarted.
    """
    counts = difference(server.name, server.role, ran.before[server.name], ran.after[server.name])
    ours = server.process is not None
    restarted = False if counts.restarted is None and ours else counts.restarted
    return replace(counts, stall_s=ran.stall_s.get(server.name), restarted=restarted)


def _earlier(deployment: Served, ran: _Run) -> float:
    """Return the number of requests that the prefilling instances had served before."""
    return sum(
        ran.before[server.name].get("requests") or 0.0
        for server in deployment.instances
        if server.role not in kv_pullers()
    )


def _facts(
    deployment: Served, ran: _Run, store: RunStore, *, repeat: int, start: int | None
) -> RunFacts:
    return RunFacts(
        system=deployment.system.name,
        repeat=repeat,
        start=start,
        shared_start=deployment.shared_start,
        started_at=utc_text(ran.started),
        finished_at=utc_text(datetime.now(UTC)),
        endpoint=deployment.url,
        timings_s=_timings(deployment, ran),
        warm_load=ran.warm,
        prefix_cache_reset=ran.reset,
        compiled=deployment.logs.compiled(),
        transfers=deployment.transfers,
        nodes=deployment.nodes,
        processes=_processes(deployment, ran.client, store),
    )


def _timings(deployment: Served, ran: _Run) -> dict[str, float]:
    return {
        **deployment.timings_s,
        "warm": ran.warm_s,
        "client": ran.client.wall_s,
        "bench": ran.client.result.duration_s,
        "scrape": time.monotonic() - ran.scraped,
    }


def _logged(ran: _Run, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield a finding with the error that servers logged about failed requests, if any."""
    if ran.logged:
        invalid = any(finding.severity == "invalid" for finding in findings)
        severity: Literal["invalid", "note"] = "invalid" if invalid else "note"
        yield Finding(check="servers", severity=severity, message=ran.logged)


def _lost(allocation: Allocation) -> tuple[Finding, ...]:
    """Return a finding if a node was lost: then the run is invalid, whatever its values."""
    try:
        allocation.check(fresh=True)
    except AllocationError as error:
        return (Finding(check="nodes", severity="invalid", message=str(error)),)
    return ()


def _processes(deployment: Served, client: ClientRun, store: RunStore) -> tuple[ProcessRecord, ...]:
    ran = [(s.process.command, s.process.log) for s in deployment.servers if s.process is not None]
    return tuple(
        ProcessRecord(
            name=command.name,
            node=command.node,
            argv=command.argv,
            env=dict(command.env),
            log=str(log.relative_to(store.folder)),
        )
        for command, log in [*ran, (client.command, client.log)]
    )
