"""Past nights, read from the runs folder: what windows of several nights look back at."""

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

FARTHEST = 90
"""Nights that are looked back at, at most. Without an end, one cell of the baseline that nobody
measures any more would have every record read."""
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
    """Its runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Nights before tonight."""

    nights: tuple[PastNight, ...] = ()
    """Newest first."""
    unreadable: tuple[str, ...] = ()
    """Records that could not be read, and why: they are left out, and that is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """The records that one session left of a system."""

    session: SessionRef
    """The session."""
    night: str
    """Night that it belongs to."""
    records: tuple[Record, ...]
    """At least one; by topology and workload, first repeats first, the invalid ones too."""
    unreadable: tuple[str, ...] = ()
    """Files of it that are no record, and why."""
    verdicts: Mapping[Key, str] | None = None
    """What its report said of each cell; None if unknown, or not read."""

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
        """Kind of its benchmark client: a session has one."""
        return self.records[0].client_kind

    def valid(self) -> dict[Key, list[Record]]:
        """Its runs by cell, without cells of which a run was invalid: those ended in an ERROR."""
        cells: dict[Key, list[Record]] = {}
        for record in self.records:
            cells.setdefault((record.topology, record.workload.id), []).append(record)
        return {key: runs for key, runs in cells.items() if not any(r.invalid for r in runs)}

    def runs(self) -> dict[Key, list[Record]]:
        """Its valid runs by cell that are evidence each: one of every start."""
        return {key: one_a_start(runs) for key, runs in self.valid().items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What a history adds to a runs folder."""

    sessions: Iterable[StoredSession] = ()
    """Its sessions that are not excluded, newest first; may be read while they are taken."""
    known: frozenset[str] = frozenset()
    """Ids of all that it holds: these need not be read elsewhere."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Id and reason of those that are."""
    refs: Mapping[str, SessionRef] = field(default_factory=dict)
    """Sessions of :attr:`excluded`, by id."""
    torn: tuple[str, ...] = ()
    """What of it cannot be read, a sentence each."""

    def joined(self, found: Iterable[StoredSession]) -> list[StoredSession]:
        """Return *found*, sessions that it does not know, and its own, newest first."""
        both = [*found, *self.sessions]
        return sorted(both, key=lambda each: _age(each.session), reverse=True)

    def merged(self, found: Iterable[StoredSession], newest: SessionRef) -> Iterator[StoredSession]:
        """Yield *found*, sessions that it does not know, and its own, newest first.

        :param newest: what nights are counted back from; neither it nor what is later is yielded.
        """
        own = (
            replace(each, night=night_of(each.session, newest))
            for each in self.sessions
            if each.run_id != newest.id and not _later(each.session, newest)
        )
        return heapq.merge(found, own, key=lambda each: _age(each.session), reverse=True)

    @property
    def left_out(self) -> tuple[str, ...]:
        """A sentence on each session that is excluded, and on what is torn."""
        return (*(f"excluded: {name}: {why}" for name, why in self.excluded.items()), *self.torn)

    def left_out_between(self, oldest: SessionRef, newest: SessionRef) -> tuple[str, ...]:
        """Return the sentences on what is torn, and on sessions excluded between two others."""
        within = {
            name: why
            for name, why in self.excluded.items()
            if name in self.refs and _age(oldest) <= _age(self.refs[name]) <= _age(newest)
        }
        return replace(self, excluded=within).left_out


NOTHING_RECALLED = Recalled()


def starts_of(runs: Sequence[Record]) -> list[list[Record]]:
    """Return runs of one cell and session by the start of their servers, oldest first.

    A run whose start nobody knows is a start by itself.
    """
    starts: dict[tuple[int | None, int], list[Record]] = {}
    for number, record in enumerate(runs):
        key = (record.start, 0 if record.start is not None else number)
        starts.setdefault(key, []).append(record)
    return list(starts.values())


def one_a_start(runs: Sequence[Record]) -> list[Record]:
    """Return the first run of every start: later ones share its servers, and confirm nothing."""
    return [start[0] for start in starts_of(runs)]


def past_nights(
    runs: Path,
    *,
    fingerprint: str,
    client_kind: str,
    system: str,
    tonight: SessionRef,
    cells: Collection[Key],
    each: int,
    recalled: Recalled = NOTHING_RECALLED,
) -> History:
    """Return the nights of the same system, hardware and kind of client, before tonight.

    Of several sessions of one night the first that has a cell counts.

    :param tonight: the session that looks back; nothing of its own night is past.
    :param cells: what nights are wanted of; topologies that take turns share none.
    :param each: nights that are wanted of each of them, the newest.
    :param recalled: sessions of a history: of what it knows nothing is read in *runs*.
    """
    nights: dict[str, dict[Key, list[Record]]] = {}
    seen: set[str] = set()
    unreadable: list[str] = []
    this, oldest = night_of(tonight, tonight), tonight
    found = stored_sessions(
        runs, system=system, unreadable=unreadable, newest=tonight, known=recalled.known
    )
    for session in recalled.merged(found, tonight):
        if session.night == this:
            continue
        if session.night not in seen and (len(seen) >= FARTHEST or _enough(nights, cells, each)):
            break
        seen, oldest = {*seen, session.night}, session.session
        alike = (session.fingerprint, session.client_kind) == (fingerprint, client_kind)
        if alike and session.runs():
            join(nights, session)
    return History(
        nights=tuple(PastNight(name=name, runs=there) for name, there in nights.items()),
        unreadable=(*unreadable, *recalled.left_out_between(oldest, tonight)),
    )


def _enough(nights: Mapping[str, Runs], cells: Collection[Key], each: int) -> bool:
    """Whether there are nights, and of every cell, as many as are wanted."""
    counts = Counter(key for night in nights.values() for key in night)
    return len(nights) >= each and all(counts[key] >= each for key in cells)


def join(nights: dict[str, dict[Key, list[Record]]], earlier: StoredSession) -> None:
    """Add to *nights* a session that began before all that they are made of.

    Of several sessions of one night the first that has a cell counts.
    """
    nights.setdefault(earlier.night, {}).update(earlier.runs())


def stored_sessions(
    runs: Path,
    *,
    system: str,
    unreadable: list[str],
    newest: SessionRef | None = None,
    known: Collection[str] = (),
) -> Iterator[StoredSession]:
    """What sessions left of *system*, newest first.

    :param unreadable: gets a sentence for each file that is no record, or lies in another's folder.
    :param newest: what nights are counted back from, and neither it nor what is later is read;
        None for the newest that is found.
    :param known: ids of sessions that need not be read.
    """
    passed = newest
    for folder, found in session_folders(runs):
        if found.system != system or folder.name in known:
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
    """What the session of *folder* left of *system*; None if nothing.

    :param unreadable: gets a sentence for each file that is no record, or lies in another's folder.
    :param newest: what its night is counted back from; None for itself.
    :param load: reads one record.
    """
    found = session_of(folder)
    if found is None or found.system != system:
        return None
    torn: list[str] = []
    records = tuple(r for r in records_of(folder, torn, load) if r.system == system)
    unreadable.extend(torn)
    if not records:
        return None
    return StoredSession(
        session=found.session,
        night=night_of(found.session, newest or found.session),
        records=records,
        unreadable=tuple(torn),
    )


def session_folders(runs: Path) -> list[tuple[Path, StoredRef]]:
    """Run folders and what each says of itself, newest first; other folders are left out.

    Sessions whose time is not known come last.
    """
    found = [(path, ref) for path in _folders(runs) if (ref := session_of(path)) is not None]
    return sorted(found, key=lambda each: _age(each[1].session), reverse=True)


def unknown_folders(runs: Path) -> list[tuple[Path, str]]:
    """Run folders of which nothing can be read, with the reason, the last changed first."""
    found = [(path, _trouble(path)) for path in _folders(runs) if session_of(path) is None]
    torn = [(path, why) for path, why in found if why]
    return sorted(torn, key=lambda each: each[0].stat().st_mtime, reverse=True)


def _trouble(folder: Path) -> str:
    """Why nothing of a run folder can be read; empty if it is not a run folder."""
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
    """Whether it is known that *session* began after *newest*."""
    began, last = session.began, newest.began
    return began is not None and last is not None and began > last


def _age(session: SessionRef) -> tuple[str, str]:
    return session.started_at or "", session.id


def session_of(folder: Path) -> StoredRef | None:
    """Return what a run folder says of itself; None if it is not one, or nothing can be read.

    Where it has no session file, as before version 2 of records, or a torn one, the first record
    that can be read tells.
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
    """Records of one run folder by topology and workload, first repeats first.

    :param unreadable: gets a sentence for each file that is no record, or of another session.
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
            unreadable.append(f"{path} is of {record.session.id}: a run folder has the run's name")
    yield from sorted(found, key=lambda r: (r.topology, r.workload.id, r.repeat))


def record_paths(folder: Path) -> list[Path]:
    """Return the files that hold a record each.

    Before version 2 of records these are all but the client's results.
    """
    if not os.path.isdir(folder):
        return []
    if is_there(folder / SESSION_FILE):
        return sorted(folder.glob(f"*/*{RECORD_SUFFIX}"))
    old = (path for path in folder.glob("*/*.json") if not path.name.endswith(".bench.json"))
    return sorted(old)
