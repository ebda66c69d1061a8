"""The store: an append-only folder of nights, read as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.history.entries import SessionEntry
from pytest_pdserve.history.exclusions import read_exclusions
from pytest_pdserve.history.exclusions import reasons_of
from pytest_pdserve.history.files import StoreFile
from pytest_pdserve.history.files import partial_paths
from pytest_pdserve.history.files import read_footer
from pytest_pdserve.history.files import read_rows
from pytest_pdserve.history.files import value_paths
from pytest_pdserve.history.files import write_file
from pytest_pdserve.values.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("valid", "unproven", "invalid", "voided")
"""Status of a value: that of its run, or ``voided`` if sanity voids the metric."""
SIMULATED_EPOCH = datetime(2000, 1, 1)
"""Date of night 0 of a simulated system, whose nights have numbers: tables need dates."""
_TRIES = 5
Key = tuple[str, str]
"""System and session id."""


@dataclass(slots=True, kw_only=True)
class Store:
    """An append-only folder of nights. Every read includes files that were added meanwhile."""

    folder: Path
    unreadable: list[str] = field(default_factory=list)
    """Files that could not be read the last time, a sentence each."""

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Return the store in *folder*, which must exist.

        :raises ConfigError: if there is no such folder.
        """
        if not folder.is_dir():
            raise ConfigError(
                f"history {str(folder)!r:.200}: expected a folder; make it with pdserve history "
                "import"
            )
        return cls(folder=folder)

    @classmethod
    def create(cls, folder: Path) -> Store:
        """Return the store in *folder*; create it if it does not exist.

        :raises ConfigError: if it cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"history {str(folder)!r:.200} cannot be made: {error}") from error
        return cls(folder=folder)

    def add(self, entry: SessionEntry, table: Any) -> Path:
        """Write one session and its rows; return the new file.

        :param table: pyarrow table of :func:`.files.file_schema`.
        :raises StoreError: if the disk does not take it.
        """
        return write_file(self.folder, [entry], table)

    def entries(self) -> tuple[SessionEntry, ...]:
        """Return every session, oldest first."""
        return tuple(entry for entry, _ in self._newest().values())

    def values(
        self,
        system: str | None = None,
        topology: str | Sequence[str] | None = None,
        workload: str | Sequence[str] | None = None,
        metric: str | Sequence[str] | None = None,
        *,
        sessions: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Return one row for each value of each run, oldest night first.

        Columns: ``night`` datetime64 UTC, NaT where unknown; ``session``, ``system``,
        ``topology``, ``workload``, ``client_kind``, ``metric`` str; ``value`` float in the
        metric's unit; ``status`` str, of :data:`STATUSES`; ``start`` Int64, NA where unknown;
        ``repeat`` int; ``excluded`` bool; ``reason`` str: why the session is excluded, else why
        the status is not valid, else empty; ``verdict`` str: verdict of the cell in the session's
        report, e.g. ``FAIL``, empty where unknown; ``seats`` str: nodes of the run's instances, as
        :func:`.seats.seats_text` writes it, empty where unknown.

        :param system: only this one; None for all, as for the others, which may be several.
        :param sessions: only sessions with these ids; None for all.
        """
        filters = {"system": system, "topology": topology, "workload": workload, "metric": metric}
        wanted = {
            name: [value] if isinstance(value, str) else list(value)
            for name, value in filters.items()
            if value is not None
        }
        if sessions is not None:
            wanted["session"] = list(sessions)
        table, newest = self._rows(wanted)
        frame = table.to_pandas()
        for name in set(frame.columns) - {"value", "start", "repeat"}:
            present = frame[name].notna()
            frame[name] = frame[name].astype(str).where(present, "")
        entries = [entry for entry, _ in newest.values()]
        return _with_nights(frame, _session_frame(entries, self.reasons()))

    def reasons(self) -> dict[Key, str]:
        """Return the reason of each excluded session."""
        exclusions, unreadable = read_exclusions(self.folder)
        self.unreadable += unreadable
        return reasons_of(exclusions)

    def sessions(self) -> pd.DataFrame:
        """Return one row for each session, oldest night first.

        Columns: ``night`` datetime64 UTC, ``session``, ``system`` str, ``versions`` JSON text,
        ``nodes`` str, separated by spaces, ``image`` str, ``client_kind`` and ``fingerprint`` str,
        ``valid``, ``unproven``, ``invalid`` int: numbers of runs; ``excluded`` bool, ``reason``
        str, ``source`` str.
        """
        return _session_frame(self.entries(), self.reasons())

    def _rows(
        self, wanted: Mapping[str, Sequence[str]]
    ) -> tuple[Any, dict[Key, tuple[SessionEntry, Path]]]:
        """Return the rows with the *wanted* values, those of each session from one file only."""
        for left in reversed(range(_TRIES)):
            newest = self._newest()
            try:
                return self._read(newest, wanted), newest
            except FileNotFoundError:  # another process joined it with others
                if not left:
                    raise
        raise AssertionError

    def _read(
        self, newest: Mapping[Key, tuple[SessionEntry, Path]], wanted: Mapping[str, Sequence[str]]
    ) -> Any:
        import pyarrow as pa
        import pyarrow.dataset as ds

        where = None
        for name, values in wanted.items():
            # The cast is needed: dictionary columns cannot be compared with text.
            matches = ds.field(name).cast(pa.string()).isin(pa.array(values, pa.string()))
            where = matches if where is None else where & matches
        whole: list[Path] = []
        parts: list[Any] = []
        for path, keys in _by_file(newest, wanted).items():
            held = {entry.key for entry in self._scanned[path].sessions}
            if held == keys:
                whole.append(path)
                continue
            ids = ds.field("session").cast(pa.string()).isin([session for _, session in keys])
            parts.append(read_rows([path], ids if where is None else where & ids))
        return pa.concat_tables([self._read_whole(whole, where), *parts]).unify_dictionaries()

    def _read_whole(self, paths: Sequence[Path], where: Any) -> Any:
        """Return the rows of all readable files; the others are added to :attr:`unreadable`."""
        import pyarrow as pa

        try:
            return read_rows(paths, where)
        except ConfigError:
            pass
        tables = []
        for path in paths:
            try:
                tables.append(read_rows([path], where))
            except ConfigError as error:
                self.unreadable.append(str(error))
        return pa.concat_tables([read_rows([]), *tables])

    _scanned: dict[Path, StoreFile] = field(default_factory=dict)

    def _newest(self) -> dict[Key, tuple[SessionEntry, Path]]:
        """Return each session and the file to read it from, oldest first.

        Of several files with a session the most complete one is used: a session that was imported
        before it ended, or by an older version, is imported again later.
        """
        self.unreadable = [
            f"{path} is not read: it is of an interrupted write, or is being written now"
            for path in partial_paths(self.folder)
        ]
        found: dict[Key, tuple[SessionEntry, Path]] = {}
        scanned: dict[Path, StoreFile] = {}
        for path in value_paths(self.folder):
            try:
                scanned[path] = self._scanned.get(path) or read_footer(path)
            except ConfigError as error:
                self.unreadable.append(str(error))
                continue
            except FileNotFoundError:
                continue
            for entry in scanned[path].sessions:
                other = found.get(entry.key)
                if other is None or entry.completeness > other[0].completeness:
                    found[entry.key] = (entry, path)
        self._scanned = scanned
        return dict(sorted(found.items(), key=lambda each: _age(each[1][0])))


def _by_file(
    newest: Mapping[Key, tuple[SessionEntry, Path]], wanted: Mapping[str, Sequence[str]]
) -> dict[Path, set[Key]]:
    """Return the files that are needed, and the sessions to read from each."""
    files: dict[Path, set[Key]] = {}
    for key, (_, path) in newest.items():
        files.setdefault(path, set()).add(key)
    systems, sessions = (frozenset(wanted.get(name, ())) for name in ("system", "session"))
    return {
        path: keys
        for path, keys in files.items()
        if any(
            ("system" not in wanted or system in systems)
            and ("session" not in wanted or session in sessions)
            for system, session in keys
        )
    }


def _age(entry: SessionEntry) -> tuple[int, str, str]:
    session = entry.session
    return session.simulated_night or 0, session.started_at or "", session.id


def nights_of(entries: Sequence[SessionEntry]) -> Iterator[datetime | None]:
    """Yield the night of each session, as verdicts count them; None if unknown.

    Sessions of a system that began within half a day of the same step of 24 h, counted back from
    its newest, are of one night (:func:`.values.sessions.night_of`).
    """
    last: dict[str, datetime] = {}
    for entry in entries:
        began = entry.session.began
        if began is not None:
            last[entry.system] = max(began, last.get(entry.system, began))
    for entry in entries:
        number, began = entry.session.simulated_night, entry.session.began
        if number is not None:
            yield SIMULATED_EPOCH + timedelta(days=number)
        elif began is None:
            yield None
        else:
            steps = round((last[entry.system] - began) / timedelta(days=1))
            day = (last[entry.system] - timedelta(days=steps)).date()
            yield datetime(day.year, day.month, day.day)


def _session_frame(entries: Sequence[SessionEntry], reasons: Mapping[Key, str]) -> pd.DataFrame:
    import pandas as pd

    nights = [pd.NaT if night is None else pd.Timestamp(night) for night in nights_of(entries)]
    frame = pd.DataFrame(
        {
            "night": pd.Series(nights, dtype="datetime64[us]").dt.tz_localize("UTC"),
            "session": [entry.session.id for entry in entries],
            "system": [entry.system for entry in entries],
            "versions": [json.dumps(dict(e.versions), sort_keys=True) for e in entries],
            "nodes": [" ".join(entry.nodes) for entry in entries],
            "image": [entry.image for entry in entries],
            "client_kind": [entry.client_kind for entry in entries],
            "fingerprint": [entry.fingerprint for entry in entries],
            **{
                status: pd.Series([e.runs.get(status, 0) for e in entries], dtype="int64")
                for status in STATUSES[:3]
            },
            "excluded": pd.Series([entry.key in reasons for entry in entries], dtype=bool),
            "reason": pd.Series([reasons.get(entry.key, "") for entry in entries], dtype=str),
            "source": [entry.source for entry in entries],
        }
    )
    return frame.sort_values("night", kind="stable", ignore_index=True)


def _with_nights(frame: pd.DataFrame, sessions: pd.DataFrame) -> pd.DataFrame:
    of_session = sessions[["system", "session", "night", "excluded", "reason"]]
    joined = frame.merge(of_session, on=["system", "session"], how="left")
    joined["start"] = joined["start"].astype("Int64")
    joined["repeat"] = joined["repeat"].astype("int64")
    joined["reason"] = joined["reason"].where(joined["excluded"], joined["why"])
    columns = [
        *("night", "session", "system", "topology", "workload", "client_kind", "metric", "value"),
        *("status", "start", "repeat", "excluded", "reason", "verdict", "seats"),
    ]
    return joined[columns].sort_values("night", kind="stable", ignore_index=True)
