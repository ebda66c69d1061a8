"""Past nights, read from the runs folder: what windows of several nights look back at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import Sitting
from pytest_pdserve.values.record import night_of
from pytest_pdserve.values.record import start_of_run

SERVING = ("vllm", "nixl", "vllm-router", "torch", "cuda", "libfabric")
"""Components of which a night must have tonight's versions, or it is no night of the same thing."""

FARTHEST = 42
"""Nights that are looked back at, at most: six of a topology that has its turn once a week. Without
an end, one cell of the baseline that nobody measures any more would have every record read."""
Key = tuple[str, str]
"""Topology and workload id."""
Runs = Mapping[Key, Sequence[Record]]
"""Valid runs of one night by topology and workload id, in the order they were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Nights before tonight."""

    nights: tuple[Runs, ...] = ()
    """Oldest first."""
    unreadable: tuple[str, ...] = ()
    """Records that could not be read, and why: they are left out, and that is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """The records that one session left of a system."""

    run_id: str
    """Name of its folder."""
    night: str
    """Night that it belongs to."""
    records: tuple[Record, ...]
    """At least one; by topology and workload, first repeats first, the invalid ones too."""
    unreadable: tuple[str, ...] = ()
    """Files of it that are no record, and why."""

    @property
    def origin(self) -> tuple[str, Mapping[str, str]]:
        """Fingerprint and serving versions: what makes nights comparable."""
        return self.records[0].fingerprint, serving_versions(dict(self.records[0].versions))

    def valid(self) -> dict[Key, list[Record]]:
        """Its runs by cell, without cells of which a run was invalid: those ended in an ERROR."""
        cells: dict[Key, list[Record]] = {}
        for record in self.records:
            cells.setdefault((record.topology, record.workload.id), []).append(record)
        return {key: runs for key, runs in cells.items() if not any(r.invalid for r in runs)}

    def runs(self) -> dict[Key, list[Record]]:
        """Its valid runs by cell that are evidence each: one of every start."""
        return {key: one_a_start(runs) for key, runs in self.valid().items()}


def by_start(runs: Sequence[Record]) -> list[list[Record]]:
    """Runs of one cell and session by the start of the servers that they ran on, oldest first.

    Every start has a log folder of its own. A run of which no log is known is a start by itself.
    """
    starts: dict[str | int, list[Record]] = {}
    for number, record in enumerate(runs):
        log = record.processes[0].log if record.processes else ""
        starts.setdefault(str(Path(log).parent) if log else number, []).append(record)
    return list(starts.values())


def one_a_start(runs: Sequence[Record]) -> list[Record]:
    """The first run of every start: later ones share its servers, and confirm nothing."""
    return [start[0] for start in by_start(runs)]


def serving_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """What of *versions* may change how fast servers are."""
    return {name: versions[name] for name in SERVING if name in versions}


def past_nights(
    runs: Path,
    *,
    like: tuple[str, Mapping[str, str]],
    system: str,
    tonight: Sitting,
    baseline: Collection[str],
    cells: Collection[Key],
    each: int,
) -> History:
    """Nights in *runs* of the same system, host and serving versions, later than the baseline's.

    Of several sessions of one night the first that has a cell counts: later ones have the night in
    common with it, and so bring little that is new.

    :param like: tonight's fingerprint and versions.
    :param tonight: the session that looks back; nothing of its own night is past.
    :param baseline: run ids of the baseline that nights are held against.
    :param cells: what nights are wanted of; topologies that take turns share none.
    :param each: nights that are wanted of each of them, the newest; so many are read of any.
    """
    fingerprint, versions = like
    wanted = fingerprint, serving_versions(versions)
    nights: dict[str, dict[Key, list[Record]]] = {}
    seen: set[str] = set()
    unreadable: list[str] = []
    old = {night_of((run, {}), tonight) for run in baseline}
    this = night_of(tonight, tonight)
    for session in stored_sessions(
        runs, system=system, unreadable=unreadable, later_than=baseline, newest=tonight
    ):
        if session.night == this or session.night in old:
            continue
        if session.night not in seen and (len(seen) >= FARTHEST or _enough(nights, cells, each)):
            break
        seen.add(session.night)
        if session.origin == wanted and session.runs():
            join(nights, session)
    return History(nights=tuple(reversed(nights.values())), unreadable=tuple(unreadable))


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
    later_than: Collection[str] = (),
    newest: Sitting | None = None,
) -> Iterator[StoredSession]:
    """What sessions left of *system*, newest first.

    :param unreadable: gets a sentence for each file that is no record, or lies in another's folder.
    :param later_than: run ids; neither they nor what is older is read.
    :param newest: what nights are counted back from, and nothing later is read; None for the
        newest that is found.
    """
    known = [began for run in later_than if (began := start_of_run(run)) is not None]
    last = start_of_run(newest[0]) if newest else None
    for folder in run_folders(runs):
        began = start_of_run(folder.name)
        if folder.name in later_than or (newest and folder.name == newest[0]):
            continue
        if began and ((known and began <= max(known)) or (last and began > last)):
            continue
        session = stored_session(folder, system=system, unreadable=unreadable, newest=newest)
        if session is not None:
            newest = newest or (session.run_id, dict(session.records[0].cluster))
            yield session


def stored_session(
    folder: Path, *, system: str, unreadable: list[str], newest: Sitting | None = None
) -> StoredSession | None:
    """What the session of *folder* left of *system*; None if nothing.

    :param unreadable: gets a sentence for each file that is no record, or lies in another's folder.
    :param newest: what its night is counted back from; None for itself.
    """
    torn: list[str] = []
    if _of_another(folder, system):
        return None
    records = tuple(r for r in records_of(folder, torn) if r.system == system)
    unreadable.extend(torn)
    if not records:
        return None
    sitting = folder.name, dict(records[0].cluster)
    night = night_of(sitting, newest or sitting)
    return StoredSession(run_id=folder.name, night=night, records=records, unreadable=tuple(torn))


def records_of(folder: Path, unreadable: list[str]) -> Iterator[Record]:
    """Records of one run folder by topology and workload, first repeats first.

    :param unreadable: gets a sentence for each file that is no record, or of another session.
    """
    for path in _record_paths(folder):
        try:
            record = load_record(path)
        except ConfigError as error:
            unreadable.append(str(error))
            continue
        if record.run_id == folder.name:
            yield record
        else:
            unreadable.append(f"{path} is of {record.run_id}: a run folder has the run's name")


def _record_paths(folder: Path) -> list[Path]:
    return sorted(filter(_is_record, folder.glob("*/*.json")), key=_place)


def _of_another(folder: Path, system: str) -> bool:
    """Whether the first record of *folder* is of another system.

    A session has one system; records of others need not be checked to be passed over.
    """
    try:
        first = load_json(next(iter(_record_paths(folder))))
    except (StopIteration, ConfigError):
        return False
    return isinstance(first, dict) and first.get("system", system) != system


def _is_record(path: Path) -> bool:
    """Whether the name is that of a record, not of the client's own result beside it."""
    return path.suffixes[-2:][0].removeprefix(".").isdecimal()


def _place(path: Path) -> tuple[str, str, int]:
    stem, _, repeat = path.name.removesuffix(".json").rpartition(".")
    return path.parent.name, stem, int(repeat)


def run_folders(runs: Path) -> list[Path]:
    """Folders in *runs*, newest first by their names."""
    try:
        folders = [path for path in runs.iterdir() if path.is_dir()]
    except OSError:
        return []
    return sorted(folders, key=lambda path: path.name, reverse=True)
