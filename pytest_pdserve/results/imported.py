"""Import results of other tools as records."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import Any

from pytest_pdserve.judge.findings import note
from pytest_pdserve.judge.findings import unproven
from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.building import RunFacts
from pytest_pdserve.results.building import build_record
from pytest_pdserve.results.documents import MAX_ROWS
from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.documents import load_rows
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.readers import read_row
from pytest_pdserve.results.readers import readers
from pytest_pdserve.results.readers.table import CLIENT as TABLE
from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import create_import
from pytest_pdserve.results.tables import load_table
from pytest_pdserve.results.tables import tables_at
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.numbers import finite
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies
from pytest_pdserve.values.workload import LENGTH_FLAGS
from pytest_pdserve.values.workload import NAME
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import Workload

DIGEST = "content_sha256"
"""Key in a record's ``cluster`` of the digest of the imported result."""
ONE_SESSION = timedelta(hours=12)
"""Results of the same servers within this time are of one session, and so of one night."""
MAX_NAMES = 20
"""Maximum number of names in a finding."""
_STORED = re.compile(rf'"{DIGEST}": "([0-9a-f]{{64}})"'.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A result that can be imported."""

    run: ForeignRun
    """The run, as its reader returned it."""
    workload: Workload
    """Load of the run."""
    digest: str
    """SHA-256 of its values, independent of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Outcome of importing one result."""

    where: str
    """File and row."""
    path: Path
    """File of its record."""
    record: Record | None
    """The record; None if the result was imported before."""


def read_results(
    paths: Sequence[Path], dataset: str | None
) -> tuple[tuple[Readable, ...], tuple[str, ...]]:
    """Read every result of files and folders; nothing is written.

    :param dataset: data set of results that do not name theirs; None leaves it unknown.
    :returns: the results, and a sentence on each file of a folder that is not a result.
    :raises ConfigError: if one cannot be read, or cannot be imported.
    """
    left_out: list[str] = []
    found = []
    for row in _rows(paths, left_out):
        run = read_row(row)
        if not (run.has_latency or run.client_kind == TABLE):
            raise ConfigError(
                f"{row.where}: it has no latency (TTFT, ITL, TPOT, E2EL) under a known name, so "
                "there is nothing to judge"
            )
        if run.result.completed == 0:
            raise ConfigError(f"{row.where}: no request completed, so there is nothing to import")
        text = json.dumps(row.data, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        found.append(Readable(run=run, workload=workload_of(run, dataset), digest=digest))
    return tuple(found), tuple(left_out)


def _rows(paths: Sequence[Path], left_out: list[str]) -> Iterator[Row]:
    count = 0
    for path in paths:
        files: Sequence[Path] = (path,)
        if tables_at(path):
            yield from _table_rows(path, left_out)
            continue
        if os.path.isdir(path):
            (folder_reader,) = (each for each in readers().values() if hasattr(each, "files_in"))
            found = folder_reader.files_in(path)
            files = found.results
            left_out += found.left_out
        for file in files:
            rows = load_rows(file)
            count += len(rows)
            if count > MAX_ROWS:
                raise ConfigError(f"{path}: more than {MAX_ROWS} results: import them in parts")
            yield from rows


def _table_rows(path: Path, left_out: list[str]) -> Iterator[Row]:
    """Yield the runs of a CSV table, or of all tables of a folder that have its columns.

    :raises ConfigError: if the table cannot be read, or no table of the folder can.
    """
    if not path.is_dir():
        rows, empty = load_table(path)
        left_out += empty
        yield from rows
        return
    refused = []
    tables = tables_at(path)
    for table in tables:
        try:
            rows, empty = load_table(table)
        except ConfigError as error:
            refused.append(str(error))
            continue
        left_out += empty
        yield from rows
    left_out += refused
    if len(refused) == len(tables):
        raise ConfigError(f"{path}: no table of nightly values; {refused[0]}")


def workload_of(run: ForeignRun, dataset: str | None) -> Workload:
    """Return the load of a run; fields that its file does not contain are unknown.

    Where different loads would then have the same name, counted tokens distinguish them; they never
    replace lengths.

    :param dataset: as of :func:`read_results`.
    :raises ConfigError: if the file names another data set, or its values are not a valid workload.
    """
    load = dict(run.load)
    load["dataset"] = name = _dataset(run, dataset)
    for missing in {"num_prompts", "request_rate", "max_concurrency", "burstiness"} - load.keys():
        load[missing] = UNKNOWN
    result = run.result
    if load["num_prompts"] == UNKNOWN and None not in (result.completed, result.failed):
        load["num_prompts"] = (result.completed or 0) + (result.failed or 0)
    if load["request_rate"] is None and "ramp_up" not in load and _may_be(load["burstiness"]):
        load["burstiness"] = 1.0  # without effect
    lengths = ("input_len", "output_len")
    if name in LENGTH_FLAGS or (name == UNKNOWN and load.keys() & {*lengths}):
        load = {**dict.fromkeys(lengths, UNKNOWN), **load}
    is_distinct = name not in (*LENGTH_FLAGS, UNKNOWN) or all(
        isinstance(load.get(length), int) for length in lengths
    )
    if load["num_prompts"] == UNKNOWN or not is_distinct:
        counted = (result.total_input_tokens, result.total_output_tokens)
        load["counted_tokens"] = None if None in counted else counted
    try:
        return Workload(**load, options=UNKNOWN)
    except ConfigError as error:
        raise ConfigError(f"{run.where}: {error}") from error


def _dataset(run: ForeignRun, given: str | None) -> str:
    named = run.load.get("dataset")
    if named is None:
        return given or UNKNOWN
    if not NAME.fullmatch(named):
        if given:
            return given
        raise ConfigError(
            f"{run.where}: data set {named!r:.60}: expected a name of letters, digits, '.', '_' "
            "and '-'; name it with --dataset"
        )
    if given not in (None, named):
        raise ConfigError(
            f"{run.where}: is of data set {named!r}, but --dataset is {given!r}; leave it out"
        )
    return str(named)


def _may_be(burstiness: Any) -> bool:
    return burstiness == UNKNOWN or (finite(burstiness) or 0.0) > 0


def store_results(
    results: Sequence[Readable],
    *,
    topology: Topology | None,
    system: str,
    versions: Mapping[str, str],
    runs: Path,
) -> list[Imported]:
    """Write a record of every result that *runs* does not have yet.

    What only the servers' counters show is unproven. Results of the same servers form a session for
    each night.

    :param topology: of the runs whose file does not name theirs; None if all do.
    :param versions: versions of the servers, beside those in the files.
    :raises StoreError: if a record cannot be written.
    """
    paths = dict(_stored(runs))
    imported: dict[str, Imported] = {}
    new = {each.digest: each for each in results if each.digest not in paths}
    for session in _sessions([*new.values()]):
        store = create_import(runs, system, session[0].run.date)
        for each in session:
            record, path = _import(each, store, topology=topology, system=system, versions=versions)
            imported[each.digest] = Imported(where=each.run.where, path=path, record=record)
            paths[each.digest] = path
    again = (Imported(where=e.run.where, path=paths[e.digest], record=None) for e in results)
    return [imported.pop(e.digest, before) for e, before in zip(results, again, strict=True)]


def _stored(runs: Path) -> Iterator[tuple[str, Path]]:
    """Yield the digest of every result that was imported before, and its record's file."""
    for path in runs.glob(f"*/*/*{RECORD_SUFFIX}"):
        if found := _STORED.search(path.read_bytes()):
            yield found[1].decode(), path


def _sessions(results: Sequence[Readable]) -> Iterator[list[Readable]]:
    """Yield the results of each session, oldest first; results without a date are one session."""

    def order(each: Readable) -> tuple[str, float]:
        run = each.run
        served = json.dumps([run.served_by, run.versions, run.date is None], sort_keys=True)
        return served, 0.0 if run.date is None else run.date.timestamp()

    session: list[Readable] = []
    for each in sorted(results, key=order):
        first = session[0] if session else None
        if first is not None and not _of_one_session(first, each, order):
            yield session
            session = []
        session.append(each)
    if session:
        yield session


def _of_one_session(first: Readable, other: Readable, order: Any) -> bool:
    (served, began), (also_served, also_began) = order(first), order(other)
    return bool(served == also_served and also_began - began < ONE_SESSION.total_seconds())


def _import(
    read: Readable,
    store: RunStore,
    *,
    topology: Topology | None,
    system: str,
    versions: Mapping[str, str],
) -> tuple[Record, Path]:
    run, workload = read.run, read.workload
    if run.topology is not None:
        (topology,) = parse_topologies(run.topology)
    if topology is None:
        raise ConfigError(f"{run.where}: it does not say its topology; give it with --topology")
    at = utc_text(run.date or datetime.now(UTC))
    versions = {**run.versions, **versions}
    bench_s = run.result.duration_s
    facts = RunFacts(
        system=system,
        repeat=store.next_repeat(topology.id, workload),
        start=run.start,
        started_at=at,
        finished_at=at,
        endpoint=UNKNOWN,
        timings_s={} if isnan(bench_s) else {"bench": bench_s},
    )
    provenance = Provenance(
        client_kind=run.client_kind,
        versions=versions,
        host=run.served_by,
        fingerprint=_fingerprint(run.served_by),
        cluster={"kind": "imported", "source": run.where, DIGEST: read.digest},
    )
    seen = Observation(
        topology=topology,
        workload=workload,
        result=run.result,
        vllm_version=versions.get("vllm"),
    )
    findings = (*check_sanity(seen), *_findings(run, topology))
    return build_record(seen, facts, provenance, store, findings=findings)


def _fingerprint(served_by: Mapping[str, str]) -> str:
    """Return a digest of the facts about the servers: runs are compared only if it is equal."""
    text = json.dumps(dict(served_by), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12] if served_by else UNKNOWN


def _findings(run: ForeignRun, topology: Topology) -> Iterator[Finding]:
    """Yield findings on the file itself."""
    has = {part.role: part.count * topology.groups for part in topology.parts}
    instances = run.instances
    if instances.get("prefill") == 0 and topology.disaggregated:
        yield unproven(
            "topology", f"the file has no separate prefill instances, unlike {topology.id}"
        )
    elif instances.get("prefill") and any(
        has.get(role, 0) != count for role, count in instances.items()
    ):
        counts = " and ".join(f"{count} {role}" for role, count in instances.items())
        yield unproven("topology", f"the file has {counts} instances, unlike {topology.id}")
    if run.date is None:
        yield note("imported", "the file has no date: this is a night of its own")
    for sentence in run.notes:
        yield note("imported", sentence)
    if names := [ascii(name)[1:-1] for name in run.not_understood]:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        yield note("imported", f"not understood: {', '.join(names[:MAX_NAMES])}{more}")
