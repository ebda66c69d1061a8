"""The runs folder: one folder per session, one record per run, nothing ever overwritten."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.results.files import check_schema
from pytest_pdserve.results.files import check_values
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.files import write_json
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.workload import Workload

RUNS = "--pdserve-runs (of pytest) or --runs (of pdserve)"
"""The options that name the runs folder."""


def new_run_id(system: str, now: datetime | None = None) -> str:
    """Name of a session, e.g. ``20260822T101500-p5-efa``; UTC."""
    return f"{(now or datetime.now(UTC)).strftime('%Y%m%dT%H%M%S')}-{system}"


def belongs_to(run_id: str, system: str) -> bool:
    """Tell whether :func:`create_run` gives such a name to sessions of *system*, or imports."""
    moment, ends = r"\d{8}T\d{6}", r"(-imported)?(-\d{1,2})?"
    return re.fullmatch(f"{moment}-{re.escape(system)}{ends}", run_id) is not None


def check_runs_folder(folder: Path) -> None:
    """Make sure that records can be written below *folder*.

    :raises ConfigError: if it is a file, or cannot be made, read or written.
    """
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not nearest.is_dir():
        raise ConfigError(f"runs folder {folder} cannot be used: {nearest} is a file")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(
            f"runs folder {folder} cannot be used: {nearest} is not readable and writable; "
            f"choose another with {RUNS}"
        )


def create_run(runs: Path, system: str) -> RunStore:
    """Make the folder of a new session; two that start in one second get two folders.

    :raises StoreError: if it cannot be made.
    """
    name = new_run_id(system)
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = runs / f"{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
        return RunStore(folder=folder)
    raise StoreError(f"{runs / name} and 98 more of that second exist already")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStore:
    """The folder of one session."""

    folder: Path
    """``runs/<run id>``."""

    @property
    def run_id(self) -> str:
        """The session's name."""
        return self.folder.name

    def logs(self, topology: str, start: int = 0) -> Path:
        """Folder of server logs of one start of a topology."""
        return self.folder / topology / (f"logs-{start + 1}" if start else "logs")

    def stem(self, topology: str, workload: Workload, repeat: int) -> Path:
        """Path that all files of one run begin with."""
        return self.folder / topology / f"{workload.id}.{repeat}"

    def next_repeat(self, topology: str, workload: Workload) -> int:
        """The first repeat of a cell that has no record yet."""
        repeat = 0
        while Path(f"{self.stem(topology, workload, repeat)}.json").exists():
            repeat += 1
        return repeat

    def write(self, record: Record, result: BenchResult) -> Path:
        """Write a record, and its requests beside it; the record comes last, so it is complete.

        :raises StoreError: if the disk does not take it.
        """
        stem = self.stem(record.topology, record.workload, record.repeat)
        if record.requests is not None:
            write_bytes(
                stem.with_name(record.requests),
                _parquet(result),
                otherwise=f"choose another {RUNS}",
            )
        data = record.to_json()
        path = stem.with_name(f"{stem.name}.json")
        check_schema(data, "record", path)
        write_json(path, data, otherwise=f"choose another {RUNS}")
        return path


def load_record(path: Path) -> Record:
    """Read a record.

    :raises ConfigError: if it is malformed.
    """
    data = load_json(path)
    check_schema(data, "record", path)
    return Record.from_json(data)


def load_bench_result(path: Path) -> BenchResult:
    """Read a result file of ``vllm bench serve``.

    :raises ClientError: if it is missing, malformed or no such result.
    """
    try:
        data = load_json(path, odd_number=str)
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


def _parquet(result: BenchResult) -> bytes:
    """One row per request: float64 ``start_s``, ``ttft_s``; lists ``itl_s``; int64 lengths."""
    import pandas as pd  # noqa: PLC0415 - half a second that only a finished run pays

    count = len(result.output_lens)
    frame = pd.DataFrame(
        {
            "input_tokens": pd.Series(result.input_lens, dtype="int64"),
            "output_tokens": pd.Series(result.output_lens, dtype="int64"),
            "start_s": pd.Series(result.start_s or [float("nan")] * count, dtype="float64"),
            "ttft_s": pd.Series(result.ttft_s, dtype="float64"),
            "itl_s": [list(gaps) for gaps in result.itl_s] or [[]] * count,
            "error": list(result.errors) or [""] * count,
        }
    )
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
