"""Sessions of a store as those of a runs folder: what judging and proposing read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.history.store import Store
from pytest_pdserve.results.history import Recalled
from pytest_pdserve.results.history import StoredSession
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import Severity
from pytest_pdserve.values.sessions import night_of

if TYPE_CHECKING:
    import pandas as pd

    from pytest_pdserve.history.entries import SessionEntry

CHECK = "history"
"""Name of the check of findings that the store kept as a sentence."""
_SEVERITIES: Mapping[str, Severity] = {"invalid": "invalid", "unproven": "unproven"}


def recall(store: Store, system: str, newest: int) -> Recalled:
    """Return the newest sessions of a system, and which are excluded.

    Their records have what the store keeps: values, versions, nodes, findings as one sentence.

    :param newest: how many sessions, counted without the excluded ones.
    """
    reasons = store.reasons()
    entries = [entry for entry in reversed(store.entries()) if entry.system == system]
    kept = [entry for entry in entries if entry.key not in reasons][:newest]
    rows = store.values(system=system, sessions=[entry.session.id for entry in kept])
    by_session = dict(iter(rows.groupby("session", sort=False)))
    found = []
    for entry in kept:
        records = tuple(_records(entry, by_session.get(entry.session.id)))
        if records:
            night = night_of(entry.session, kept[0].session)
            found.append(StoredSession(session=entry.session, night=night, records=records))
    return Recalled(
        sessions=found,
        known=frozenset(entry.session.id for entry in entries),
        excluded={e.session.id: reasons[e.key] for e in entries if e.key in reasons},
        torn=tuple(dict.fromkeys(store.torn)),
    )


def _records(entry: SessionEntry, rows: pd.DataFrame | None) -> Iterator[Record]:
    """Return the records of a session, as run folders have them."""
    if rows is None:
        return
    columns = ("topology", "workload", "start", "repeat")
    numbers = rows["start"].to_numpy(float, na_value=math.nan)
    starts = [None if math.isnan(number) else int(number) for number in numbers]
    cells: dict[tuple[Any, ...], list[Any]] = {}
    keys: Iterable[Any] = zip(
        rows["topology"], rows["workload"], starts, rows["repeat"], strict=True
    )
    values = zip(rows["metric"], rows["value"], rows["status"], rows["reason"], strict=True)
    for key, value in zip(keys, values, strict=True):
        cells.setdefault(key, []).append(value)
    for key in sorted(cells, key=lambda each: (each[0], each[1], each[3])):
        yield _record(entry, dict(zip(columns, key, strict=True)), cells[key])


def _record(entry: SessionEntry, cell: Mapping[str, Any], values: Sequence[Any]) -> Record:
    at = entry.session.started_at or "1970-01-01T00:00:00.000Z"
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
        processes=(),
        endpoint=entry.source,
        client_kind=entry.client_kind,
        client={},
        metrics={metric: value for metric, value, _, _ in values},
        served=(),
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
