"""Past nights, read from the runs folder, for verdicts over several nights."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections import Counter
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.store import RECORD_SUFFIX
from pytest_pdserve.results.store import SESSION_FILE
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.sessions import night_of

MAX_NIGHTS = 90
"""Maximum number of past nights that are read. Without a maximum, one cell of the baseline that is
not measured any more would cause every record to be read."""
Key = tuple[str, str]
"""Topology and workload id."""
Runs = Mapping[Key, Sequence[Record]]
"""Valid runs of one night by topology and workload id, in the order they were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastNight:
    """One night before tonight."""

    name: str
    """Its date, or its number if it was simulated."""
    runs: Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Nights before tonight."""

    nights: tuple[PastNight, ...] = ()
    """Newest first."""
    unreadable: tuple[str, ...] = ()
    """Records that could not be read, and why: they are left out, and reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """The records that one session left of a system."""

    session: SessionRef
    night: str
    """Name of its night, as of :attr:`PastNight.name`."""
    records: tuple[Record, ...]
    """At least one, valid or not; ordered by topology, workload and repeat."""
    unreadable: tuple[str, ...] = ()
    """Files of the session that are not records, and why."""
    verdicts: Mapping[Key, str] | None = None
    """Verdict of each cell in its report; None if unknown, or not read."""

    @property
    def run_id(self) -> str:
        """Name of its folder."""
        return self.session.id

    @property
    def fingerprint(self) -> str:
        """Digest of hardware and system file: what makes nights comparable."""
        return self.records[0].fingerprint

    @property
    def client_kind(self) -> str:
        """Kind of its benchmark client; a session has exactly one."""
        return self.records[0].client_kind

    def valid(self) -> dict[Key, list[Record]]:
        """Return its runs by cell, without cells with an invalid run: they ended in an ERROR."""
        cells: dict[Key, list[Record]] = {}
        for record in self.records:
            cells.setdefault((record.topology, record.workload.id), []).append(record)
        return {key: runs for key, runs in cells.items() if not any(r.invalid for r in runs)}

    def runs(self) -> dict[Key, list[Record]]:
        """Return its valid runs by cell that are independent evidence: one of every start."""
        return {key: one_per_start(runs) for key, runs in self.valid().items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySessions:
    """Sessions from a history, which complete those of a runs folder."""

    sessions: Iterable[StoredSession] = ()
    """Sessions that are not excluded, newest first; may be read lazily."""
    session_ids: frozenset[str] = frozenset()
    """Ids of all its sessions: they are not read from the runs folder."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Id and reason of each excluded session."""
    refs: Mapping[str, SessionRef] = field(default_factory=dict)
    """Sessions of :attr:`excluded`, by id."""
    unreadable: tuple[str, ...] = ()
    """Files of the history that cannot be read, a sentence each."""

    def joined(self, found: Iterable[StoredSession]) -> list[StoredSession]:
        """Return *found*, which are sessions outside the history, and its own, newest first."""
        both = [*found, *self.sessions]
        return sorted(both, key=lambda each: _age(each.session), reverse=True)

    def merged(self, found: Iterable[StoredSession], newest: SessionRef) -> Iterator[StoredSession]:
        """Yield *found*, which are sessions outside the history, and its own, newest first.

        :param newest: session that nights are counted back from; only earlier ones are yielded.
        """
        own = (
            replace(each, night=night_of(each.session, newest))
            for each in self.sessions
            if each.run_id != newest.id and not _later(each.session, newest)
        )
        return heapq.merge(found, own, key=lambda each: _age(each.session), reverse=True)

    @property
    def left_out(self) -> tuple[str, ...]:
        """A sentence on each excluded session, and on each unreadable file."""
        return (
            *(f"excluded: {name}: {why}" for name, why in self.excluded.items()),
            *self.unreadable,
        )

    def left_out_between(self, oldest: SessionRef, newest: SessionRef) -> tuple[str, ...]:
        """Return the sentences on unreadable files, and on excluded sessions between two others."""
        within = {
            name: why
            for name, why in self.excluded.items()
            if name in self.refs and _age(oldest) <= _age(self.refs[name]) <= _age(newest)
        }
        return replace(self, excluded=within).left_out


NO_HISTORY = HistorySessions()


def starts_of(runs: Sequence[Record]) -> list[list[Record]]:
    """Return runs of one cell and session by the start of their servers, oldest first.

    A run of unknown start is a start by itself.
    """
    starts: dict[tuple[int | None, int], list[Record]] = {}
    for number, record in enumerate(runs):
        key = (record.start, 0 if record.start is not None else number)
        starts.setdefault(key, []).append(record)
    return list(starts.values())


def one_per_start(runs: Sequence[Record]) -> list[Record]:
    """Return the first run of every start: later runs on the same servers are not evidence."""
    return [start[0] for start in starts_of(runs)]


def past_nights(
    runs: Path,
    *,
    fingerprint: str,
    client_kind: str,
    system: str,
    tonight: SessionRef,
    cells: Collection[Key],
    per_cell: int,
    from_history: HistorySessions = NO_HISTORY,
) -> History:
    """Return the nights of the same system, hardware and kind of client, before tonight.

    Of several sessions of one night the first that has a cell counts.

    :param tonight: the current session; its own night is not included.
    :param cells: cells whose nights are wanted; different topologies may run in different nights.
    :param per_cell: number of nights of each cell, the newest.
    :param from_history: sessions of a history; these are not read from *runs*.
    """
    nights: dict[str, dict[Key, list[Record]]] = {}
    seen: set[str] = set()
    unreadable: list[str] = []
    this, oldest = night_of(tonight, tonight), tonight
    found = stored_sessions(
        runs, system=system, unreadable=unreadable, newest=tonight, skipped=from_history.session_ids
    )
    for past in from_history.merged(found, tonight):
        if past.night == this:
            continue
        if past.night not in seen and (len(seen) >= MAX_NIGHTS or _enough(nights, cells, per_cell)):
            break
        seen, oldest = {*seen, past.night}, past.session
        alike = (past.fingerprint, past.client_kind) == (fingerprint, client_kind)
        if alike and past.runs():
            join(nights, past)
    return History(
        nights=tuple(PastNight(name=name, runs=there) for name, there in nights.items()),
        unreadable=(*unreadable, *from_history.left_out_between(oldest, tonight)),
    )


def _enough(nights: Mapping[str, Runs], cells: Collection[Key], per_cell: int) -> bool:
    """Tell whether there are enough nights in all, and of every cell."""
    counts = Counter(key for night in nights.values() for key in night)
    return len(nights) >= per_cell and all(counts[key] >= per_cell for key in cells)


def join(nights: dict[str, dict[Key, list[Record]]], earlier: StoredSession) -> None:
    """Add to *nights* a session that began before all sessions in them.

    Of several sessions of one night the first that has a cell counts.
    """
    nights.setdefault(earlier.night, {}).update(earlier.runs())


def stored_sessions(
    runs: Path,
    *,
    system: str,
    unreadable: list[str],
    newest: SessionRef | None = None,
    skipped: Collection[str] = (),
) -> Iterator[StoredSession]:
    """Yield the stored sessions of *system*, newest first.

    :param unreadable: receives a sentence for each file that is not a record of the session.
    :param newest: session that nights are counted back from; only earlier ones are read. None for
        the newest that is found.
    :param skipped: ids of sessions that are not read.
    """
    passed = newest
    for folder, found in session_folders(runs):
        if found.system != system or folder.name in skipped:
            continue
        if passed and (folder.name == passed.id or _later(found.session, passed)):
            continue
        stored = stored_session(folder, system=system, unreadable=unreadable, newest=newest)
        if stored is not None:
            newest = newest or stored.session
            yield stored


def stored_session(
    folder: Path,
    *,
    system: str,
    unreadable: list[str],
    newest: SessionRef | None = None,
    load: Callable[[Path], Record] = load_record,
) -> StoredSession | None:
    """Return the session of *folder*; None if it has no records of *system*.

    :param unreadable: receives a sentence for each file that is not a record of the session.
    :param newest: session that its night is counted back from; None for itself.
    :param load: reads one record.
    """
    found = session_of(folder)
    if found is None or found.system != system:
        return None
    own_unreadable: list[str] = []
    records = tuple(r for r in records_of(folder, own_unreadable, load) if r.system == system)
    unreadable.extend(own_unreadable)
    if not records:
        return None
    return StoredSession(
        session=found.session,
        night=night_of(found.session, newest or found.session),
        records=records,
        unreadable=tuple(own_unreadable),
    )


def session_folders(runs: Path) -> list[tuple[Path, StoredRef]]:
    """Return run folders with their sessions, newest first; other folders are left out.

    Sessions of unknown time come last.
    """
    found = [(path, ref) for path in _folders(runs) if (ref := session_of(path)) is not None]
    return sorted(found, key=lambda each: _age(each[1].session), reverse=True)


def unknown_folders(runs: Path) -> list[tuple[Path, str]]:
    """Return unreadable run folders with the reason, the last changed first."""
    found = [(path, _trouble(path)) for path in _folders(runs) if session_of(path) is None]
    unreadable_folders = [(path, why) for path, why in found if why]
    return sorted(unreadable_folders, key=lambda each: each[0].stat().st_mtime, reverse=True)


def _trouble(folder: Path) -> str:
    """Return why nothing of a run folder can be read; empty if it is not a run folder."""
    try:
        if is_there(folder / SESSION_FILE):
            _session_file(folder)
        for path in record_paths(folder):
            load_record(path)
    except ConfigError as error:
        return str(error)
    return ""


def _session_file(folder: Path) -> StoredRef:
    path = folder / SESSION_FILE
    found = SESSION.parse(load_json(path), path)
    if found.session.id != folder.name:
        raise ConfigError(
            f"{path}: /session/id: is {found.session.id!r}, expected the folder's name"
        )
    return found


def _folders(runs: Path) -> list[Path]:
    try:
        return sorted(path for path in runs.iterdir() if path.is_dir())
    except (OSError, ValueError):  # ValueError: a null character
        return []


def _later(session: SessionRef, newest: SessionRef) -> bool:
    """Tell whether *session* is known to have begun after *newest*."""
    began, last = session.began, newest.began
    return began is not None and last is not None and began > last


def _age(session: SessionRef) -> tuple[str, str]:
    return session.started_at or "", session.id


def session_of(folder: Path) -> StoredRef | None:
    """Return the session of a run folder; None if it is not one, or nothing can be read.

    Without a readable session file, as before version 2 of records, the first readable record
    contains it.
    """
    with contextlib.suppress(ConfigError):
        return _session_file(folder)
    for path in record_paths(folder):
        try:
            record = load_record(path)
        except ConfigError:
            continue
        return StoredRef(session=record.session, system=record.system)
    return None


def records_of(
    folder: Path, unreadable: list[str], load: Callable[[Path], Record] = load_record
) -> Iterator[Record]:
    """Yield the records of one run folder by topology, workload and repeat.

    :param unreadable: receives a sentence for each file that is not a record of the session.
    :param load: reads one record.
    """
    found = []
    for path in record_paths(folder):
        try:
            record = load(path)
        except ConfigError as error:
            unreadable.append(str(error))
            continue
        if record.session.id == folder.name:
            found.append(record)
        else:
            unreadable.append(
                f"{path} is of session {record.session.id}, expected {folder.name}, the name of "
                "its folder"
            )
    yield from sorted(found, key=lambda r: (r.topology, r.workload.id, r.repeat))


def record_paths(folder: Path) -> list[Path]:
    """Return the record files of a run folder.

    Before version 2 these are all JSON files except the client's results.
    """
    if not os.path.isdir(folder):
        return []
    if is_there(folder / SESSION_FILE):
        return sorted(folder.glob(f"*/*{RECORD_SUFFIX}"))
    old = (path for path in folder.glob("*/*.json") if not path.name.endswith(".bench.json"))
    return sorted(old)
