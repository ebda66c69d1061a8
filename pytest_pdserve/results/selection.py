"""Select comparable stored sessions: of one system, hardware, client and serving versions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.results.history import NO_HISTORY
from pytest_pdserve.results.history import HistorySessions
from pytest_pdserve.results.history import Key
from pytest_pdserve.results.history import Runs
from pytest_pdserve.results.history import StoredSession
from pytest_pdserve.results.history import join
from pytest_pdserve.results.history import records_of
from pytest_pdserve.results.history import session_folders
from pytest_pdserve.results.history import stored_session
from pytest_pdserve.results.history import stored_sessions
from pytest_pdserve.results.history import unknown_folders
from pytest_pdserve.results.verdicts import FAILED
from pytest_pdserve.results.verdicts import session_verdicts
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sources import changes
from pytest_pdserve.values.system import System

SERVING = ("vllm", "nixl", "vllm-router", "torch", "cuda", "libfabric")
"""Components whose versions affect the speed of servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Comparable sessions, and what was left out."""

    sessions: Sequence[StoredSession]
    """Oldest first; at least one, each with a valid run."""
    left_out: tuple[str, ...]
    """Sessions and files that were left out and why, a sentence each."""
    notes: tuple[str, ...] = ()
    """What is unknown about the selected sessions, a sentence each."""

    @property
    def period(self) -> str:
        """First and last night, as text."""
        first, last = self.sessions[0].night, self.sessions[-1].night
        return first if first == last else f"{first} to {last}"

    def one_per_night(self) -> Selection:
        """Merge the sessions of each night; of several with the same cell the first counts."""
        nights: dict[str, dict[Key, list[Record]]] = {}
        for session in reversed(self.sessions):
            join(nights, session)
        joined = [_joined(night, cells) for night, cells in nights.items()]
        used = {record.session.id for session in joined for record in session.records}
        more = len(self.sessions) - len(used)
        why = "whose cells are all in earlier sessions of the same night"
        return Selection(
            sessions=sorted(joined, key=lambda each: (each.session.started_at or "", each.run_id)),
            left_out=(*self.left_out, *_several(more, why)),
            notes=self.notes,
        )

    def before(self, night: str) -> Selection:
        """Return the sessions of nights before one.

        :param night: its date, ISO 8601.
        :raises ConfigError: if there are none.
        """
        kept = [session for session in self.sessions if session.night < night]
        if not kept:
            raise ConfigError(f"--before {night}: the first night is {self.sessions[0].night}")
        return replace(self, sessions=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedDifferences:
    """Permitted differences between sessions that are compared."""

    version: bool
    """True if serving versions may differ."""
    load: bool
    """True if ``[sweep]`` of the system file may differ."""


def _joined(night: str, cells: Runs) -> StoredSession:
    """Return a night as one session, named after the last session with a cell in it."""
    records = tuple(record for runs in cells.values() for record in runs)
    last = max((record.session for record in records), key=lambda s: (s.started_at or "", s.id))
    return StoredSession(session=last, night=night, records=records)


def select(
    runs: Path,
    system: System,
    run_ids: Sequence[str] = (),
    *,
    any_version: bool = False,
    any_load: bool = False,
    from_history: HistorySessions = NO_HISTORY,
) -> Selection:
    """Return the sessions of *system* below *runs* that can be compared with each other.

    Without *run_ids*, hardware and versions are those of the newest session, and other sessions are
    left out; with them, all must agree.

    :param any_version: whether serving versions may differ.
    :param any_load: whether ``[sweep]`` of the system file may differ.
    :param from_history: sessions of a history; these are not read from *runs*.
    :raises ConfigError: if there is none; if one was simulated and the system is real, or the other
        way round; if one of *run_ids* does not exist, is of another system, or does not agree.
    """
    unreadable: list[str] = []
    found = _found(runs, system, run_ids, unreadable, from_history)
    allowed = AllowedDifferences(version=any_version, load=any_load)
    alike = [s for s in found if not any(_differences(s, found[0], allowed))]
    if run_ids:
        _check_alike(found, alike)
    valid = [session for session in alike if session.runs()]
    if not valid:
        raise ConfigError(f"{runs} holds no valid run of {system.name!r} ({_origin(found[0])})")
    invalid = [record for session in alike for record in session.records if record.invalid]
    return Selection(
        sessions=tuple(reversed(valid)),
        left_out=(
            *_others(found, alike[0], allowed),
            *_several(len(alike) - len(valid), "without a valid run"),
            *(f"invalid: {r.session.id} {r.cell}: {r.invalid[0].message}" for r in invalid),
            *unreadable,
            *from_history.left_out,
        ),
    )


def without_failed(selection: Selection, runs: Path) -> Selection:
    """Return a selection without the cells that FAILed in their session.

    Sessions with unknown verdicts stay, and a note is added.

    :param runs: folder of sessions whose verdicts are not read yet.
    :raises ConfigError: if nothing is left.
    """
    unreadable: list[str] = []
    failures: list[str] = []
    read = [
        session
        if session.verdicts is not None
        else replace(session, verdicts=session_verdicts(runs / session.run_id, unreadable))
        for session in selection.sessions
    ]
    kept = [passed for each in read if (passed := _without_failed_cells(each, failures)).runs()]
    if not kept:
        raise ConfigError(
            f"every session that could be taken FAILed ({_origin(selection.sessions[-1])}): to "
            "accept the level of such nights, give --with-failed"
        )
    unknown = sum(session.verdicts is None for session in kept)
    note = (
        f"verdicts unknown of {unknown} of {len(kept)} sessions, which are used: they left no "
        "report, or an older version imported them"
    )
    return Selection(
        sessions=tuple(kept),
        left_out=(*selection.left_out, *failures, *unreadable),
        notes=(note,) if unknown else (),
    )


def _without_failed_cells(session: StoredSession, failures: list[str]) -> StoredSession:
    """Return a session without the cells that FAILed; add a sentence about them to *failures*."""
    verdicts = session.verdicts or {}
    cells = {(record.topology, record.workload.id) for record in session.records}
    failed = {key for key in cells if verdicts.get(key) in FAILED}
    if failed:
        failures.append(f"FAIL: {session.run_id}: {len(failed)} of {len(cells)} cells")
    kept = tuple(r for r in session.records if (r.topology, r.workload.id) not in failed)
    return replace(session, records=kept)


def _found(
    runs: Path,
    system: System,
    run_ids: Sequence[str],
    unreadable: list[str],
    from_history: HistorySessions,
) -> list[StoredSession]:
    """Return all sessions of *system*, or those of *run_ids*: at least one, newest first."""
    if system.figures is not None:
        raise ConfigError(f"{system.name!r} consists of figures: it has no measured sessions")
    skipped = from_history.session_ids
    in_runs = stored_sessions(runs, system=system.name, unreadable=unreadable, skipped=skipped)
    found = from_history.joined(in_runs)
    if run_ids:
        found = _chosen(found, run_ids, runs, system)
    _check_found(found, runs, system)
    _check_kind(found, system)
    return found


def _chosen(
    found: Sequence[StoredSession], run_ids: Sequence[str], runs: Path, system: System
) -> list[StoredSession]:
    ids = {session.run_id for session in found}
    unknown = next((run for run in run_ids if run not in ids), None)
    if unknown is not None:
        raise ConfigError(_no_records(runs / unknown, system))
    return [session for session in found if session.run_id in run_ids]


def find_session(runs: Path, system: System, run_id: str | None) -> StoredSession:
    """Return one stored session of *system*, the newest if none is named.

    :raises ConfigError: if there is none, or nothing of it can be read; if it was simulated and the
        system is real, or the other way round.
    """
    if run_id is None:
        found = next(stored_sessions(runs, system=system.name, unreadable=[]), None)
    else:
        found = stored_session(runs / run_id, system=system.name, unreadable=[])
    for folder in _skipped_folders(runs, system, run_id, found):
        _check_read(folder, system)
    _check_unknown(runs, run_id, found)
    if found is None:
        raise ConfigError(
            _no_records_yet(runs, system) if run_id is None else _no_records(runs / run_id, system)
        )
    _check_kind([found], system)
    return found


def find_night(runs: Path, system: System, run_ids: Sequence[str]) -> StoredSession:
    """Return stored sessions of one night as one; of several with the same cell the first counts.

    :param run_ids: names of their folders; empty for the newest session alone.
    :raises ConfigError: as :func:`find_session` and :func:`select`, or if they are of several
        nights.
    """
    if len(run_ids) < 2:
        return find_session(runs, system, next(iter(run_ids), None))
    nights = select(runs, system, run_ids).one_per_night().sessions
    if len(nights) > 1:
        found = ", ".join(each.night for each in nights)
        raise ConfigError(f"{', '.join(run_ids)}: expected sessions of one night, not of {found}")
    return nights[0]


def _skipped_folders(
    runs: Path, system: System, run_id: str | None, found: StoredSession | None
) -> list[Path]:
    """Return folders that were requested instead of *found*: newer ones of the same system."""
    if run_id is not None:
        return [] if found else [runs / run_id]
    newer = []
    for folder, each in session_folders(runs):
        if found is not None and each.session == found.session:
            break
        if each.system == system.name:
            newer.append(folder)
    return newer


def _check_unknown(runs: Path, run_id: str | None, found: StoredSession | None) -> None:
    """Raise if a session without a readable system name would be skipped.

    A folder that was last changed before *found* began cannot be newer.
    """
    began = found.session.began if found else None
    for folder, why in unknown_folders(runs):
        newer = began is None or folder.stat().st_mtime > began.timestamp()
        if (folder.name == run_id) if run_id is not None else newer:
            raise ConfigError(
                f"{folder}: nothing of this session can be read, so it cannot be judged: {why}; "
                "name the RUN to judge"
            )


def _check_read(folder: Path, system: System) -> None:
    """Raise if a session would be skipped because nothing of it can be read."""
    unreadable: list[str] = []
    if any(True for _ in records_of(folder, unreadable)):  # of another system with the same name
        return
    if unreadable:
        raise ConfigError(
            f"{folder}: none of its {len(unreadable)} records can be read, so it cannot be judged; "
            f"the first: {unreadable[0]}"
        )
    if os.path.isdir(folder):
        raise ConfigError(
            f"{_no_records(folder, system)}: that session has no measurements yet; name "
            "the RUN to judge"
        )


def _check_found(found: Sequence[StoredSession], runs: Path, system: System) -> None:
    if not found:
        raise ConfigError(_no_records_yet(runs, system))


def _no_records(folder: Path, system: System) -> str:
    return f"{folder} holds no records of {system.name!r}"


def _no_records_yet(runs: Path, system: System) -> str:
    return (
        f"{_no_records(runs, system)}; make some with pytest suites/sweep --system {system.name}, "
        "or name another folder with --runs"
    )


def _check_kind(found: Sequence[StoredSession], system: System) -> None:
    for session in found:
        if any(record.simulated != system.simulated for record in session.records):
            was, is_ = ("measured", "simulated") if system.simulated else ("simulated", "not")
            raise ConfigError(
                f"{session.run_id} was {was}, but {system.name!r} is {is_}; name the runs that are "
                "of it"
            )


def _check_alike(found: Sequence[StoredSession], alike: Sequence[StoredSession]) -> None:
    for other in found:
        if other not in alike:
            raise ConfigError(
                f"{other.run_id} ({_origin(other)}) cannot be mixed with {found[0].run_id} "
                f"({_origin(found[0])}): hardware, client and serving versions must be the same"
            )


def _others(
    found: Sequence[StoredSession], kept: StoredSession, allowed: AllowedDifferences
) -> Iterator[str]:
    """Yield the number of sessions that differ from *kept*, by their differences."""
    kinds = Counter(", ".join(_differences(s, kept, allowed)) for s in found)
    for difference, number in kinds.items():
        if difference:
            yield from _several(number, f"of another client, hardware or version: {difference}")


def _differences(
    session: StoredSession, kept: StoredSession, allowed: AllowedDifferences
) -> Iterator[str]:
    theirs, ours = session.fingerprint, kept.fingerprint
    if theirs != ours and not (allowed.load and _only_load_differs(session, kept)):
        changed_facts = changes(kept.records[0].host, session.records[0].host)
        yield f"fingerprint {theirs}, not {ours}" + (
            f" ({'; '.join(changed_facts)})" if changed_facts else ""
        )
    if session.client_kind != kept.client_kind:
        yield f"client {session.client_kind}, not {kept.client_kind}"
    versions, wanted = session.records[0].versions, kept.records[0].versions
    for name in () if allowed.version else SERVING:
        has, wants = versions.get(name, "unknown"), wanted.get(name, "unknown")
        if has != wants:
            yield f"{name} {has}, not {wants}"


def _only_load_differs(session: StoredSession, kept: StoredSession) -> bool:
    one, other = session.records[0].host, kept.records[0].host
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return bool(keys) and all(key.startswith("sweep.") for key in keys)


def _several(number: int, why: str) -> list[str]:
    return [f"{number} session{'s' * (number > 1)} {why}"] if number else []


def _origin(session: StoredSession) -> str:
    versions = session.records[0].versions
    facts = [f"{name} {versions[name]}" for name in SERVING if name in versions]
    facts += [f"client {session.client_kind}", f"fingerprint {session.fingerprint}"]
    return ", ".join(facts)
