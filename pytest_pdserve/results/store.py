"""The runs folder: one folder per session, one record per run. Records are never overwritten."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path

import msgspec

from pytest_pdserve.results.files import check_values
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import PHASES
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.kinds import REPORT
from pytest_pdserve.results.kinds import SESSION
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.requests import requests_bytes
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import StoredRef
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.workload import Workload

RECORD_SUFFIX = ".record.json"
SESSION_FILE = "session.json"
PHASES_FILE = "phases.json"
REPORT_FILE = "report.json"
MAX_RESULT_MIB = 4096
"""Maximum size of the client's result file, which has every gap between tokens."""
MAX_NAME = 180
"""Maximum characters of a run's file name without its suffixes; file systems allow 255 bytes."""
RUNS = "--pdserve-runs (of pytest) or --runs (of pdserve)"
"""The options that name the runs folder."""


def new_run_id(system: str, now: datetime | None = None) -> str:
    """Return the name of a session, e.g. ``20260822T101500-p5-efa``; UTC."""
    return f"{(now or datetime.now(UTC)).strftime('%Y%m%dT%H%M%S')}-{system}"


def check_runs_folder(folder: Path) -> None:
    """Raise if records cannot be written below *folder*.

    :raises ConfigError: if it is a file, or cannot be made, read or written.
    """
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # ValueError: a null character
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"runs folder {str(folder)!r:.200} cannot be used: {why}") from error
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        found = "a file" if nearest.exists() else "a broken link"
        raise ConfigError(f"runs folder {folder} cannot be used: {nearest} is {found}")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(
            f"runs folder {folder} cannot be used: {nearest} is not readable and writable; "
            f"choose another with {RUNS}"
        )


def create_run(runs: Path, system: str, *, simulated_night: int | None = None) -> RunStore:
    """Create the folder of a new session; sessions of the same second get different folders.

    :param simulated_night: number of the night of a simulated system.
    :raises StoreError: if it cannot be made.
    """
    now = datetime.now(UTC)
    name = new_run_id(system, now)
    return _create(runs / name, system, began=now, simulated_night=simulated_night)


def create_import(runs: Path, system: str, began: datetime | None) -> RunStore:
    """Create the folder of a session that was measured elsewhere.

    :param began: when it was measured; its folder and its night are named after that. None if
        unknown: it is then a night of its own.
    :raises StoreError: if it cannot be made.
    """
    name = new_run_id(f"{system}-imported", began)
    return _create(runs / name, system, began=began, simulated_night=None)


def _create(
    wanted: Path, system: str, *, began: datetime | None, simulated_night: int | None
) -> RunStore:
    """Create the folder *wanted*; if it exists, one of the same name with a number."""
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = wanted.with_name(f"{wanted.name}{suffix}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
        session = SessionRef(
            id=folder.name,
            started_at=None if began is None else utc_text(began),
            simulated_night=simulated_night,
        )
        path = folder / SESSION_FILE
        data = SESSION.dump(StoredRef(session=session, system=system), path)
        write_json(path, data, otherwise=f"choose another {RUNS}")
        return RunStore(folder=folder, session=session)
    raise StoreError(f"{wanted} and 98 more of the same second exist already")


def cut_name(name: str) -> str:
    """Return *name*, cut to :data:`MAX_NAME` characters and ending with its digest if longer."""
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 13]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStore:
    """Paths and files of one session's folder."""

    folder: Path
    """``runs/<run id>``."""
    session: SessionRef

    def logs(self, topology: str, start: int = 0) -> Path:
        """Return the folder of server logs of one start of a topology."""
        return self.folder / topology / (f"logs-{start + 1}" if start else "logs")

    def stem(self, topology: str, workload: Workload, repeat: int) -> Path:
        """Return the path that the names of all files of one run begin with."""
        return self.folder / topology / f"{cut_name(workload.id)}.{repeat}"

    def next_repeat(self, topology: str, workload: Workload) -> int:
        """Return the first repeat of a cell without a record."""
        repeat = 0
        while Path(f"{self.stem(topology, workload, repeat)}{RECORD_SUFFIX}").exists():
            repeat += 1
        return repeat

    def write(self, record: Record, result: BenchResult) -> Path:
        """Write a record, after the file of its requests: a record on disk is complete.

        :raises StoreError: if the disk does not take it.
        """
        stem = self.stem(record.topology, record.workload, record.repeat)
        if record.requests is not None:
            write_bytes(
                stem.with_name(record.requests),
                requests_bytes(result),
                otherwise=f"choose another {RUNS}",
            )
        path = stem.with_name(f"{stem.name}{RECORD_SUFFIX}")
        write_json(path, RECORD.dump(record, path), otherwise=f"choose another {RUNS}")
        return path

    def write_times(self, times: SessionTimes) -> None:
        """Write the times of the session's phases, over earlier ones.

        :raises StoreError: if the disk does not take it.
        """
        path = self.folder / PHASES_FILE
        write_json(path, PHASES.dump(times, path), otherwise=f"choose another {RUNS}")

    def write_report(self, report: Report) -> None:
        """Write the session's report.

        :raises ConfigError: if no file can hold it.
        :raises StoreError: if the disk does not take it.
        """
        path = self.folder / REPORT_FILE
        write_json(path, REPORT.dump(report, path), otherwise=f"choose another {RUNS}")


def load_record(path: Path) -> Record:
    """Read a record of any schema version.

    :raises ConfigError: if it is malformed.
    """
    return RECORD.parse(load_json(path), path)


def load_own_record(path: Path) -> Record:
    """Read a record that pdserve wrote, ten times as fast as :func:`load_record`.

    Types and limits of its fields are checked; unknown fields, which only a file that was edited by
    hand has, are not.

    :raises ConfigError: if it is malformed.
    """
    data = load_json(path)
    if isinstance(data, dict) and data.get("schema_version") == RECORD.version:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(data, Record)
    return RECORD.parse(data, path)


def load_times(folder: Path) -> SessionTimes | None:
    """Read the times of a session's phases; None if its run folder has none.

    :raises ConfigError: if the file is malformed.
    """
    path = folder / PHASES_FILE
    return PHASES.parse(load_json(path), path) if is_there(path) else None


def load_report(folder: Path) -> Report | None:
    """Read the report of a session; None if its run folder has none.

    :raises ConfigError: if the file is malformed, or of another session than the folder.
    """
    path = folder / REPORT_FILE
    if not is_there(path):
        return None
    report = REPORT.parse(load_json(path), path)
    found = report.session.id if report.session else None
    if found != folder.resolve().name:
        raise ConfigError(f"{path}: /session/id: is {found!r}, expected the folder's name")
    return report


def load_bench_result(path: Path) -> BenchResult:
    """Read a result file of ``vllm bench serve``.

    :raises ClientError: if it is missing, malformed or not such a result.
    """
    try:
        data = load_json(path, odd_number=str, max_mib=MAX_RESULT_MIB)
        check_values(data, path)
    except ConfigError as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data":
            raise ClientError(
                f"{path} holds more than one result, as --append-result writes them; "
                "give each a file of its own"
            ) from error
        raise ClientError(str(error)) from error
    return BenchResult.from_json(data, source=str(path))
