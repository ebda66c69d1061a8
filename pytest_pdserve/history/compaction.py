"""Join many files of one session each to one file per month, so that old stores open fast."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock
from filelock import Timeout

from pytest_pdserve.history.entries import SessionEntry
from pytest_pdserve.history.files import StoreFile
from pytest_pdserve.history.files import read_footer
from pytest_pdserve.history.files import read_rows
from pytest_pdserve.history.files import value_paths
from pytest_pdserve.history.files import write_file
from pytest_pdserve.history.store import Store
from pytest_pdserve.values.errors import ConfigError

MIN_FILES = 20
"""Minimum number of files of one month that are joined; fewer are fast to read."""
_LOCK = ".compaction.lock"


def compact(store: Store, min_files: int = MIN_FILES) -> int:
    """Join the files of each month with many files; return how many were joined.

    The joined file is written before the others are removed, so that no session is ever missing; a
    session in both is read once. If another process is joining, nothing is done.

    :raises StoreError: if the disk does not take a file.
    """
    try:
        with FileLock(store.folder / _LOCK, blocking=False):
            months: dict[str, list[Path]] = {}
            for path in value_paths(store.folder):
                months.setdefault(path.parent.name, []).append(path)
            many = [paths for paths in months.values() if len(paths) >= min_files]
            return sum(_join(store.folder, paths) for paths in many)
    except (Timeout, OSError):  # a store that cannot be locked is slower, but complete
        return 0


def _join(folder: Path, paths: list[Path]) -> int:
    """Join the readable files among *paths*; damaged ones stay for inspection."""
    files = [file for path in paths if (file := _readable(path)) is not None]
    if len(files) < 2:
        return 0
    # Of a session in several files all rows but those of its best file would be counted twice.
    best: dict[tuple[str, str], tuple[SessionEntry, Path]] = {}
    for file in files:
        for entry in file.sessions:
            other = best.get(entry.key)
            if other is None or entry.completeness > other[0].completeness:
                best[entry.key] = (entry, file.path)
    table = _rows(files, best)
    written = write_file(folder, [entry for entry, _ in best.values()], table)
    for file in files:
        if file.path != written:
            file.path.unlink(missing_ok=True)
    return len(files)


def _readable(path: Path) -> StoreFile | None:
    try:
        read_rows([path])
        return read_footer(path)
    except (ConfigError, FileNotFoundError):
        return None


def _rows(files: list[StoreFile], best: dict[tuple[str, str], tuple[SessionEntry, Path]]) -> object:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = []
    for file in files:
        table = read_rows([file.path])
        pairs = [key for key, (_, path) in best.items() if path == file.path]
        mask = pa.array([False] * len(table))
        text = {name: table[name].cast(pa.string()) for name in ("system", "session")}
        for system, session in pairs:
            here = pc.and_(pc.equal(text["system"], system), pc.equal(text["session"], session))
            mask = pc.or_(mask, here)
        parts.append(table.filter(mask))
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()
