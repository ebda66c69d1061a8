"""Build the record of a run, whether measured, simulated or imported."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.values.client_offsets import ClientOffsets
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Compiled
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.system import UNNAMED_CLIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Facts that all records of a session share."""

    versions: Mapping[str, str]
    """Package to version."""
    host: Mapping[str, str]
    """Hardware, and everything in the system file that affects a measurement."""
    fingerprint: str
    """Digest of :attr:`host`."""
    cluster: Mapping[str, Any] = field(default_factory=dict)
    """Kind of cluster, and details of the allocation."""
    client_kind: str = UNNAMED_CLIENT
    """Kind of the benchmark client, as of :attr:`.record.Record.client_kind`."""
    client_offsets: ClientOffsets | None = None
    """Offsets of the client; None if not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts of a run that its observation does not contain."""

    system: str
    """Name of the system."""
    repeat: int
    """Counts runs of one cell from 0."""
    start: int | None
    """Start of the servers, counted from 0 in the session; None if unknown."""
    shared_start: int | None = None
    """As :attr:`.record.Record.shared_start`."""
    started_at: str
    """UTC, ISO 8601."""
    finished_at: str
    """UTC, ISO 8601."""
    endpoint: str
    """URL that the client sent requests to."""
    timings_s: Mapping[str, float]
    """Seconds of each phase."""
    nodes: tuple[str, ...] = ()
    """Nodes that the servers and the client ran on."""
    processes: tuple[ProcessRecord, ...] = ()
    """Servers and client."""
    simulated: bool = False
    """True if the run was simulated, without servers."""
    warm_load: Mapping[str, float] = field(default_factory=dict)
    """Load of the warm-up before the run, as of :attr:`.record.Record.warm_load`."""
    prefix_cache_reset: bool | None = None
    """True if the prefix caches were emptied before."""
    compiled: Compiled | None = None
    """As :attr:`.record.Record.compiled`."""
    transfers: tuple[RunningTransfer, ...] = ()
    """As :attr:`.record.Record.transfers`."""


def build_record(
    seen: Observation,
    facts: RunFacts,
    provenance: Provenance,
    store: RunStore,
    *,
    findings: Sequence[Finding] | None = None,
) -> tuple[Record, Path]:
    """Build and write the record of a run, valid or not; return it and its file.

    Secrets are taken out of every text, such as the answers of servers that errors quote.

    :param findings: findings of sanity; None runs its checks.
    :raises StoreError: if the record cannot be written.
    """
    redactor = environment_redactor()
    clean = replace(seen, result=redactor.value(seen.result))  # findings quote it
    record = redactor.value(_record(clean, facts, provenance, store, findings))
    return record, store.write(record, clean.result)


def _record(
    seen: Observation,
    facts: RunFacts,
    provenance: Provenance,
    store: RunStore,
    findings: Sequence[Finding] | None,
) -> Record:
    return Record(
        **_of_session(provenance),
        session=store.session,
        system=facts.system,
        simulated=facts.simulated,
        topology=seen.topology.id,
        workload=seen.workload,
        repeat=facts.repeat,
        start=facts.start,
        shared_start=facts.shared_start,
        started_at=facts.started_at,
        finished_at=facts.finished_at,
        nodes=facts.nodes,
        processes=facts.processes,
        endpoint=facts.endpoint,
        warm_load=facts.warm_load,
        prefix_cache_reset=facts.prefix_cache_reset,
        client_node=seen.client_node,
        gpus=seen.gpus,
        fabric=seen.fabric,
        compiled=facts.compiled,
        transfers=facts.transfers,
        client_offset_ms=seen.client_offset_ms,
        router=seen.router,
        client=seen.result.raw,
        metrics=METRICS.measure(seen),
        served=seen.served,
        timings_s={name: round(value, 3) for name, value in facts.timings_s.items()},
        findings=tuple(check_sanity(seen) if findings is None else findings),
        requests=_requests_file(seen, facts, store),
    )


def _of_session(provenance: Provenance) -> dict[str, Any]:
    """Return the fields that all records of a session share."""
    return {
        "versions": provenance.versions,
        "host": provenance.host,
        "fingerprint": provenance.fingerprint,
        "cluster": provenance.cluster,
        "client_kind": provenance.client_kind,
    }


def _requests_file(seen: Observation, facts: RunFacts, store: RunStore) -> str | None:
    """Return the name of the file with a row per request; None without details."""
    stem = store.stem(seen.topology.id, seen.workload, facts.repeat)
    return f"{stem.name}.requests.parquet" if seen.result.detailed else None
