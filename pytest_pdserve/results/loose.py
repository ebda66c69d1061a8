"""Read single files outside run folders: records, and results of other tools."""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.imported import Readable
from pytest_pdserve.results.imported import read_results
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.store import load_record
from pytest_pdserve.results.tables import tables_at
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record

SUFFIXES = (".json", ".jsonl", ".yaml", ".yml")
"""Files of a folder that may be a record or a result; CSV tables are read together."""
MAX_FILES = 10_000
"""Maximum number of files in one folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseFiles:
    """Records and results from files outside run folders."""

    records: Mapping[Path, Record] = field(default_factory=dict)
    """Record by its file."""
    results: Sequence[Readable] = ()
    """Results of other tools."""
    left_out: tuple[str, ...] = ()
    """Files that were left out and why, a sentence each."""


def read_loose(paths: Sequence[Path], dataset: str | None) -> LooseFiles:
    """Read every record and result of files and folders; nothing is written.

    A file that is named must be readable; one that is found in a folder is left out if it is not.

    :param dataset: data set of results that do not name theirs; None leaves it unknown.
    :raises ConfigError: if a file that is named cannot be read, or a folder has no readable file.
    """
    records: dict[Path, Record] = {}
    results: list[Readable] = []
    left_out: list[str] = []
    for path in paths:
        for files, is_named in _groups(path):
            try:
                _read(files, dataset, records, results, left_out)
            except ConfigError as error:
                if is_named:
                    raise
                left_out.append(str(error))
    if not records and not results:
        raise ConfigError(
            f"{paths[0]} has no readable record or result"
            + (f"; the first: {left_out[0]}" if left_out else "")
        )
    return LooseFiles(records=records, results=results, left_out=tuple(left_out))


def _groups(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the files that are read together, and whether they were named."""
    if not os.path.isdir(path):
        yield path, True
        return
    files = _files(path)
    if tables_at(path) or not files:
        yield path, True  # tables, or a sweep
    for file in files:
        yield file, False


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder that may be a record or a result.

    :raises ConfigError: if the folder cannot be read, or holds too many.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}") from error
    found = [
        folder / name
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    if len(found) > MAX_FILES:
        raise ConfigError(f"{folder} holds more than {MAX_FILES} files: import them in parts")
    return [each for each in found if is_there(each) and not each.is_dir()]


def _read(
    path: Path,
    dataset: str | None,
    records: dict[Path, Record],
    results: list[Readable],
    left_out: list[str],
) -> None:
    if _is_record(path):
        records[path] = load_record(path)
        return
    found, not_read = read_results([path], dataset)
    results += found
    left_out += not_read


def _is_record(path: Path) -> bool:
    """Tell whether a file is a record of pdserve: it has a schema version and a session."""
    if path.suffix.lower() != ".json":
        return False
    try:
        data = load_json(path)
    except ConfigError:  # a result of another tool, whose reader reports the error
        return False
    return isinstance(data, dict) and {"schema_version", "metrics", "session"} <= data.keys()
