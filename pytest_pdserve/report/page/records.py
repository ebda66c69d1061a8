"""The runs of a page: command lines, versions, findings, and causes that their logs name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.allocation import cause_text
from pytest_pdserve.backends.allocation import log_cause
from pytest_pdserve.results.store import load_own_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Outcome
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.root_cause import KILLED_SILENTLY

Key = tuple[object, ...]
MAX_RECORDS = 400
"""Records that are shown in full, some 3 kB each; the others are links."""
MAX_LOGS = 200
"""Logs that are searched and listed."""
_WITH_CAUSES: tuple[Outcome | None, ...] = ("FAIL", "ERROR", "SUSPICIOUS", "NOT JUDGED")
"""Verdicts whose logs are searched for a cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One record, as a page shows it."""

    number: int
    """Counted from 1 over the page."""
    path: Path
    """File of the record."""
    of: VerdictReport
    """Verdict on its cell."""
    record: Record | None = None
    """The record; None where it was not read."""
    why: str = ""
    """Why it cannot be read."""
    own: tuple[ProcessRecord, ...] = ()
    """Processes of this run alone, such as its client."""
    servers: int | None = None
    """Number of the servers that it shares with other runs; None where it shares none."""
    causes: tuple[str, ...] = ()
    """Causes of errors that its logs name, a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Processes that several runs have in common."""

    number: int
    """Counted from 1 over the page."""
    topology: str
    """Topology that they are of."""
    start: int | None
    """Which start of it, counted from 0; None where unknown."""
    processes: tuple[ProcessRecord, ...]
    """The processes."""


@dataclass(slots=True, kw_only=True)
class Runs:
    """All runs of a session, those of the worst cells first."""

    runs: list[Run] = field(default_factory=list)
    servers: dict[tuple[Key, ...], Servers] = field(default_factory=dict)
    """Processes that runs have in common."""
    by_path: dict[str, Run] = field(default_factory=dict)
    """Runs by the path that a verdict names."""

    @property
    def shown(self) -> list[Run]:
        """Runs that are shown in full, and those that cannot be read."""
        return [run for run in self.runs if run.record is not None or run.why]

    @property
    def linked(self) -> int:
        """How many have only a link."""
        return len(self.runs) - len(self.shown)


def runs_of(report: Report, folder: Path | None) -> Runs:
    """Return the runs of a report, and read as many of their records as a page shows.

    :param folder: folder of the session; None where it left none.
    """
    if folder is None:
        return Runs()
    named = [(verdict, path) for verdict in report.verdicts for path in verdict.records]
    read = [_read(folder / path) for _, path in named[:MAX_RECORDS]]
    shared = _shared([record for record, _ in read if record is not None])
    runs, causes = Runs(), LogCauses()
    for number, (verdict, path) in enumerate(named, 1):
        record, why = read[number - 1] if number <= len(read) else (None, "")
        run = Run(number=number, path=folder / path, of=verdict, record=record, why=why)
        if record is not None:
            run = _with_processes(run, record, runs, shared)
            if record.invalid or verdict.status in _WITH_CAUSES:
                logs = [folder / process.log for process in record.processes if process.log]
                run = replace(run, causes=causes.of(logs))
        runs.runs.append(run)
        runs.by_path[path] = run
    return runs


def _with_processes(run: Run, record: Record, runs: Runs, shared: Set[Key]) -> Run:
    """Return *run* with its own processes and the number of its servers, which *runs* gets."""
    common = tuple(each for each in record.processes if _key(record, each) in shared)
    own = tuple(each for each in record.processes if _key(record, each) not in shared)
    if not common:
        return replace(run, own=own)
    key = tuple(_key(record, each) for each in common)
    if key not in runs.servers:
        runs.servers[key] = Servers(
            number=len(runs.servers) + 1,
            topology=record.topology,
            start=record.start,
            processes=common,
        )
    return replace(run, own=own, servers=runs.servers[key].number)


def _read(path: Path) -> tuple[Record | None, str]:
    """Return a record, or None and why it cannot be read."""
    try:
        return load_own_record(path), ""
    except ConfigError as error:
        return None, str(error)


def _key(record: Record, process: ProcessRecord) -> Key:
    """Return what identifies a process of one start."""
    env = tuple(sorted(process.env.items()))
    return (record.topology, record.start, process.name, process.node, process.argv, env)


def _shared(records: Sequence[Record]) -> set[Key]:
    """Return the processes that are in more than one record."""
    counts = Counter(_key(record, each) for record in records for each in record.processes)
    return {key for key, count in counts.items() if count > 1}


class LogCauses:
    """Causes of errors that logs name; each log is read once."""

    def __init__(self) -> None:
        self._found: dict[Path, str] = {}

    def of(self, logs: Iterable[Path]) -> tuple[str, ...]:
        """Return the cause of the last error in each log that names one, with file and line.

        A server that was killed names none: a session kills servers that never answer.

        Of more logs than :data:`MAX_LOGS` the first are read.
        """
        for log in logs:
            if log not in self._found and len(self._found) < MAX_LOGS:
                cause = log_cause(log)
                has_cause = cause is not None and cause.text != KILLED_SILENTLY
                self._found[log] = cause_text(cause, log) if cause and has_cause else ""
        return tuple(text for log in dict.fromkeys(logs) if (text := self._found.get(log)))


def logs_in(folder: Path | None) -> list[Path]:
    """Return the logs of a session's servers, as many as a page lists; none without a folder."""
    if folder is None:
        return []
    try:
        return sorted(folder.glob("*/logs*/*.log"))[:MAX_LOGS]
    except (OSError, ValueError):  # a folder that no system can have, or that cannot be read
        return []
