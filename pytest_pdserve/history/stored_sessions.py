"""Sessions of a store in the form of stored sessions, for verdicts and proposals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.history.seats import instances_of
from pytest_pdserve.history.store import Store
from pytest_pdserve.results.history import HistorySessions
from pytest_pdserve.results.history import StoredSession
from pytest_pdserve.results.history import record_paths
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import Severity
from pytest_pdserve.values.sessions import night_of

if TYPE_CHECKING:
    import pandas as pd

    from pytest_pdserve.history.entries import SessionEntry

CHECK = "history"
"""Name of the check in findings, of which the store keeps only the message."""
_CHUNK = 30
"""Number of sessions whose values are read together."""
_CHECKED = 10
"""Number of newest sessions that may have more records in the runs folder: older ones had ended
when the newest was imported."""
_SEVERITIES: Mapping[str, Severity] = {"invalid": "invalid", "unproven": "unproven"}


def sessions_of_history(
    store: Store, system: str, newest: int | None = None, *, runs: Path | None = None
) -> HistorySessions:
    """Return the newest sessions of a system, and the excluded ones.

    Their records contain what the store keeps: values, versions, nodes, one finding as a sentence.
    The values are read during the iteration, a few sessions at a time.

    :param newest: how many sessions, counted without the excluded ones; None for all.
    :param runs: runs folder; sessions with more records there are left out, as they were imported
        before they ended.
    """
    entries = [entry for entry in store.entries() if entry.system == system]
    reasons = store.reasons()  # after the entries, which reset the list of unreadable files
    entries.sort(key=_age, reverse=True)
    if runs is not None:
        grown = {entry.session.id for entry in entries[:_CHECKED] if _has_grown(entry, runs)}
        entries = [e for e in entries if e.session.id not in grown or e.key in reasons]
    excluded = {e.session.id: e for e in entries if e.key in reasons}
    kept = [entry for entry in entries if entry.key not in reasons][:newest]
    return HistorySessions(
        sessions=_Sessions(store, kept),
        session_ids=frozenset(entry.session.id for entry in entries),
        excluded={name: reasons[entry.key] for name, entry in excluded.items()},
        refs={name: entry.session for name, entry in excluded.items()},
        unreadable=tuple(dict.fromkeys(store.unreadable)),
    )


def session_in(store: Store, entry: SessionEntry) -> StoredSession | None:
    """Return one session of a store; None if its values cannot be read."""
    return next(iter(_Sessions(store, [entry])), None)


def _age(entry: SessionEntry) -> tuple[str, str]:
    """Return the key by which run folders are sorted."""
    return entry.session.started_at or "", entry.session.id


def _has_grown(entry: SessionEntry, runs: Path) -> bool:
    return len(record_paths(runs / entry.session.id)) > entry.run_count


@dataclass(frozen=True, slots=True)
class _Sessions:
    """Sessions of a store, newest first; each pass over them reads their values again."""

    store: Store
    entries: Sequence[SessionEntry]

    def __iter__(self) -> Iterator[StoredSession]:
        for first in range(0, len(self.entries), _CHUNK):
            yield from self._read(self.entries[first : first + _CHUNK])

    def _read(self, entries: Sequence[SessionEntry]) -> Iterator[StoredSession]:
        ids = [entry.session.id for entry in entries]
        rows = self.store.values(system=entries[0].system, sessions=ids)
        by_session = dict(iter(rows.groupby("session", sort=False)))
        for entry in entries:
            of_session = by_session.get(entry.session.id)
            if of_session is not None:
                yield StoredSession(
                    session=entry.session,
                    night=night_of(entry.session, self.entries[0].session),
                    records=tuple(_records(entry, of_session)),
                    verdicts=_verdicts(of_session) if entry.judged else None,
                )


def _verdicts(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    cells = zip(rows["topology"], rows["workload"], rows["verdict"], strict=True)
    return {(topology, workload): verdict for topology, workload, verdict in cells if verdict}


def _records(entry: SessionEntry, rows: pd.DataFrame) -> Iterator[Record]:
    """Yield the records of a session, as run folders have them."""
    columns = ("topology", "workload", "start", "repeat", "seats")
    numbers = rows["start"].to_numpy(float, na_value=math.nan)
    starts = [None if math.isnan(number) else int(number) for number in numbers]
    cells: dict[tuple[Any, ...], list[Any]] = {}
    keys: Iterable[Any] = zip(
        *(rows["topology"], rows["workload"], starts, rows["repeat"], rows["seats"]), strict=True
    )
    values = zip(rows["metric"], rows["value"], rows["status"], rows["reason"], strict=True)
    for key, value in zip(keys, values, strict=True):
        cells.setdefault(key, []).append(value)
    for key in sorted(cells, key=lambda each: (each[0], each[1], each[3])):
        yield _record(entry, dict(zip(columns, key, strict=True)), cells[key])


def _record(entry: SessionEntry, cell: Mapping[str, Any], values: Sequence[Any]) -> Record:
    at = entry.session.started_at or "1970-01-01T00:00:00.000Z"
    served, processes = instances_of(cell["seats"])
    return Record(
        session=entry.session,
        system=entry.system,
        simulated=entry.simulated,
        fingerprint=entry.fingerprint,
        topology=cell["topology"],
        workload=entry.workloads[cell["workload"]],
        repeat=int(cell["repeat"]),
        start=cell["start"],
        started_at=at,
        finished_at=at,
        versions=entry.versions,
        host=entry.host,
        nodes=entry.nodes,
        processes=processes,
        endpoint=entry.source,
        client_kind=entry.client_kind,
        client={},
        metrics={metric: value for metric, value, _, _ in values},
        served=served,
        timings_s={},
        findings=tuple(_findings(values)),
        requests=None,
    )


def _findings(values: Sequence[Any]) -> Iterator[Finding]:
    voided: dict[str, list[str]] = {}
    of_run: dict[Severity, str] = {}
    for metric, _, status, reason in values:
        if status == "voided":
            voided.setdefault(reason, []).append(metric)
        elif status in _SEVERITIES:
            of_run[_SEVERITIES[status]] = reason
    for severity, reason in of_run.items():
        yield Finding(check=CHECK, severity=severity, message=reason)
    for reason, metrics in voided.items():
        yield Finding(check=CHECK, severity="unproven", message=reason, voids=tuple(metrics))
