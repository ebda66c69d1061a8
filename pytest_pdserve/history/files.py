"""The files of a store: each is written once and atomically, and contains whole sessions.

The values of a file are rows; its sessions are JSON in its footer: both are written together.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pytest_pdserve.history.entries import SessionEntry
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.values.errors import ConfigError

VALUES = "values"
"""Folder of the files, with a folder for each month."""
SUFFIX = ".parquet"
PARTIAL = ".partial"
"""Suffix of the file of an interrupted write."""
COLUMNS = (
    *("system", "session", "topology", "workload", "client_kind", "metric", "value", "status"),
    *("start", "repeat", "why", "verdict", "seats"),
)
"""Columns of a file, in order; the last two are null in files of older versions."""
_KEY = b"pdserve"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Footer:
    schema_version: int
    sessions: tuple[SessionEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFile:
    """One readable file of a store."""

    path: Path
    """The file."""
    sessions: tuple[SessionEntry, ...]
    """Sessions whose values it holds."""


def file_schema() -> Any:
    """Return the pyarrow schema of a file: one row per value of a run."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {
        "value": pa.float64(),
        "start": pa.int32(),
        "repeat": pa.int32(),
    }
    return pa.schema([(name, kinds.get(name, text)) for name in COLUMNS])


def month_of(entry: SessionEntry) -> str:
    """Return the name of the folder of a session's file: its month, e.g. ``2026-11``."""
    if entry.session.simulated_night is not None:
        return "simulated"
    began = entry.session.began
    return "undated" if began is None else began.strftime("%Y-%m")


def write_file(folder: Path, entries: Sequence[SessionEntry], table: Any) -> Path:
    """Write sessions of one month to a new file; return its path.

    Its name contains a digest of its content: writing the same content again changes nothing.

    :param table: pyarrow table of :func:`file_schema`, with the rows of all *entries*.
    :raises StoreError: if the disk does not take it.
    """
    import pyarrow.parquet as pq

    footer = msgspec.json.encode(_Footer(schema_version=_VERSION, sessions=tuple(entries)))
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({_KEY: footer}), buffer, compression="zstd", version="2.6"
    )
    content = buffer.getvalue()
    name = entries[0].session.id if len(entries) == 1 else f"{len(entries)}-sessions"
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = folder / VALUES / month_of(entries[0]) / f"{name[:150]}-{digest}{SUFFIX}"
    write_bytes(path, content, otherwise="choose another folder with --history")
    return path


def read_footer(path: Path) -> StoreFile:
    """Return the sessions of a file.

    :raises ConfigError: if it is damaged, or is not a file of a store.
    :raises FileNotFoundError: if it does not exist any more, e.g. after another process joined it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = (pq.read_metadata(path).metadata or {}).get(_KEY)
        if found is None:
            raise ConfigError(f"{path}: expected a file of a pdserve history")
        footer = msgspec.json.decode(found, type=_Footer)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} is damaged: {_first_line(error)}") from error
    if footer.schema_version != _VERSION:
        raise ConfigError(
            f"{path}: schema_version {footer.schema_version}, expected {_VERSION}; use the "
            "pytest-pdserve that wrote it"
        )
    return StoreFile(path=path, sessions=footer.sessions)


def read_rows(paths: Sequence[Path], where: Any = None) -> Any:
    """Return the rows of files as one pyarrow table.

    :param where: pyarrow expression that filters rows; None for all rows.
    :raises ConfigError: if a file is damaged.
    :raises FileNotFoundError: if one does not exist any more.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    if not paths:
        return file_schema().empty_table()
    names = [str(path) for path in paths]
    try:
        return ds.dataset(names, schema=file_schema(), format="parquet").to_table(filter=where)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{_named(paths)} damaged: {_first_line(error)}") from error


def value_paths(folder: Path) -> Iterator[Path]:
    """Return the paths of all files of a store."""
    return (path for path in sorted((folder / VALUES).glob(f"*/*{SUFFIX}")))


def partial_paths(folder: Path) -> Iterator[Path]:
    """Return the files of interrupted writes, and of writes in progress."""
    return (path for path in sorted(folder.glob(f"*/**/.*{PARTIAL}")))


def _named(paths: Sequence[Path]) -> str:
    return f"{paths[0]} is" if len(paths) == 1 else f"one of {len(paths)} files is"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
