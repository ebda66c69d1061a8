"""Import sessions of a runs folder into a store."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.history.entries import FORM
from pytest_pdserve.history.entries import SessionEntry
from pytest_pdserve.history.files import file_schema
from pytest_pdserve.history.seats import seats_text
from pytest_pdserve.history.store import Store
from pytest_pdserve.history.stored_sessions import session_in
from pytest_pdserve.results.history import StoredSession
from pytest_pdserve.results.history import record_paths
from pytest_pdserve.results.history import session_of
from pytest_pdserve.results.history import stored_session
from pytest_pdserve.results.history import unknown_folders
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.store import REPORT_FILE
from pytest_pdserve.results.store import load_own_record
from pytest_pdserve.results.verdicts import session_verdicts
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import night_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedSession:
    """Outcome of importing one run folder."""

    folder: Path
    """The run folder, or the file of a single record."""
    entry: SessionEntry | None
    """The session; None if it has no readable record."""
    path: Path | None
    """The new file of the store; None if nothing was added."""
    unreadable: tuple[str, ...] = ()
    """Files that could not be read, a sentence each."""


def import_folders(
    store: Store, folders: Sequence[Path], system: str | None = None
) -> Iterator[ImportedSession]:
    """Add the session of each run folder that is not completely in the store.

    :param system: only sessions of this system; None for any.
    :raises StoreError: if the disk does not take a session; those before it are stored.
    """
    stored = {entry.key: entry for entry in store.entries()}
    for folder in folders:
        ref = session_of(folder)
        if ref is None or system not in (None, ref.system):
            continue
        stored_entry = stored.get((ref.system, ref.session.id))
        if stored_entry is not None and _is_up_to_date(stored_entry, folder):
            yield ImportedSession(folder=folder, entry=stored_entry, path=None)
            continue
        yield _import_one(store, folder, ref.system, stored_entry)


def import_records(
    store: Store, records: Mapping[Path, Record], system: str | None = None
) -> Iterator[ImportedSession]:
    """Add single records, each to its session, unless the store has them.

    :param records: record by its file.
    :param system: only sessions of this system; None for any.
    :raises StoreError: if the disk does not take a session; those before it are stored.
    """
    stored = {entry.key: entry for entry in store.entries()}
    sessions: dict[tuple[str, str], dict[Path, Record]] = {}
    for path, record in records.items():
        if system in (None, record.system):
            sessions.setdefault((record.system, record.session.id), {})[path] = record
    for key, given in sessions.items():
        stored_entry = stored.get(key)
        before = session_in(store, stored_entry) if stored_entry is not None else None
        there = {_run_of(record) for record in (before.records if before else ())}
        new = {_run_of(r): r for r in given.values() if _run_of(r) not in there}
        source = next(iter(given))
        if not new:
            yield ImportedSession(folder=source, entry=stored_entry, path=None)
            continue
        session = _with_records(before, [*new.values()])
        entry = entry_of(session, str(source))
        path = store.add(entry, rows_of(session))
        yield ImportedSession(folder=source, entry=entry, path=path)


def _run_of(record: Record) -> tuple[str, str, int]:
    return record.topology, record.workload.id, record.repeat


def _with_records(before: StoredSession | None, new: Sequence[Record]) -> StoredSession:
    first = new[0].session
    records = sorted([*(before.records if before else ()), *new], key=_run_of)
    return StoredSession(
        session=first,
        night=night_of(first, first),
        records=tuple(records),
        verdicts=before.verdicts if before else None,
    )


def _is_up_to_date(stored_entry: SessionEntry, folder: Path) -> bool:
    """Tell whether the store has everything of a run folder."""
    has_verdicts = stored_entry.judged or not is_there(folder / REPORT_FILE)
    return (
        stored_entry.form == FORM
        and has_verdicts
        and stored_entry.run_count == len(record_paths(folder))
    )


def run_folders(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the run folders among *paths* and in them, and a sentence on each unreadable one.

    :raises ConfigError: if one of *paths* cannot be read.
    """
    found: dict[Path, None] = {}
    unreadable: list[str] = []
    for path in paths:
        if session_of(path) is not None:
            found[path] = None
            continue
        try:
            inner = sorted(each for each in path.iterdir() if each.is_dir())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        found |= dict.fromkeys(each for each in inner if session_of(each) is not None)
        unreadable += [why for _, why in unknown_folders(path)]
    return list(found), unreadable


def _import_one(
    store: Store, folder: Path, system: str, stored_entry: SessionEntry | None
) -> ImportedSession:
    unreadable: list[str] = []
    session = stored_session(folder, system=system, unreadable=unreadable, load=load_own_record)
    if session is None:
        return ImportedSession(folder=folder, entry=None, path=None, unreadable=tuple(unreadable))
    session = replace(session, verdicts=session_verdicts(folder, unreadable))
    entry = entry_of(session, str(folder))
    newer = stored_entry is None or entry.completeness > stored_entry.completeness
    path = store.add(entry, rows_of(session)) if newer else None
    return ImportedSession(folder=folder, entry=entry, path=path, unreadable=tuple(unreadable))


def entry_of(session: StoredSession, source: str) -> SessionEntry:
    """Return the facts about a session that the store keeps beside its values.

    :param source: run folder or file.
    """
    first = session.records[0]
    counts = {"valid": 0, "unproven": 0, "invalid": 0}
    for record in session.records:
        counts[_status(record)] += 1
    return SessionEntry(
        session=session.session,
        system=first.system,
        simulated=first.simulated,
        fingerprint=first.fingerprint,
        host=first.host,
        client_kind=first.client_kind,
        versions=first.versions,
        nodes=tuple(dict.fromkeys(node for r in session.records for node in r.nodes)),
        image=first.versions.get("image", ""),
        workloads={record.workload.id: record.workload for record in session.records},
        runs=counts,
        source=source,
        judged=session.verdicts is not None,
        form=FORM,
    )


def rows_of(session: StoredSession) -> Any:
    """Return a pyarrow table with one row for each value of each run of a session."""
    import pyarrow as pa

    verdicts = session.verdicts or {}
    rows = [
        row
        for record in session.records
        for row in _rows(record, verdicts.get((record.topology, record.workload.id)))
    ]
    schema = file_schema()
    plain = {name: [row[name] for row in rows] for name in schema.names}
    arrays = [pa.array(plain[field.name]).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _rows(record: Record, verdict: str | None) -> Iterator[Mapping[str, Any]]:
    status, why, seats = _status(record), _why(record), seats_text(record)
    voids = {metric: f.message for f in record.findings for metric in f.voids}
    for name, value in record.metrics.items():
        voided = status != "invalid" and name in voids
        yield {
            "system": record.system,
            "session": record.session.id,
            "topology": record.topology,
            "workload": record.workload.id,
            "client_kind": record.client_kind,
            "metric": name,
            "value": value,
            "status": "voided" if voided else status,
            "start": record.start,
            "repeat": record.repeat,
            "why": voids[name] if voided else why,
            "verdict": verdict,
            "seats": seats,
        }


def _status(record: Record) -> str:
    return "invalid" if record.invalid else "unproven" if record.unproven else "valid"


def _why(record: Record) -> str:
    """Return the first finding that makes a run invalid or unproven; empty without one."""
    found = (*record.invalid, *record.unproven)
    return found[0].message if found else ""
