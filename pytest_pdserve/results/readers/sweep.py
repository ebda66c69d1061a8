"""Results of ``vllm bench sweep``: of ``vllm bench serve``, with the settings of the sweep."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.results.documents import FolderFiles
from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.documents import load_rows
from pytest_pdserve.results.foreign import MAX_TEXT
from pytest_pdserve.results.foreign import Fields
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.readers import vllm
from pytest_pdserve.values.errors import ConfigError

TEXT = "results and folders of vllm bench sweep"
RUN_NUMBER = "run_number"
MAX_FILES = 10_000
"""Maximum files and folders of a sweep."""
MAX_LEVELS = 3
"""Folder levels: the output, an experiment, a combination."""
_RUN = re.compile(r"run=\d{1,6}\.json")
_FAILURE = re.compile(r"(?:run=\d{1,6}\.|SERVE-.*-)failure\.json")


def reads(row: Mapping[str, Any]) -> bool:
    """Tell whether *row* is a result with the number of its run in a sweep."""
    return RUN_NUMBER in row and "completed" in row


def read(row: Row) -> ForeignRun:
    """Return the run of a result.

    The sweep writes its settings after the run's number; settings that are not of the load are of
    the servers. Servers of one setting stay up for all its runs.

    :raises ConfigError: as the reader of ``vllm bench serve``.
    """
    fields = Fields(row)
    fields.skip(RUN_NUMBER, "_benchmark_name")
    vllm.take_load(fields)
    names = list(row.data)
    own = [name for name in names[names.index(RUN_NUMBER) + 1 :] if name in fields.left]
    fields.skip(*own)
    run = vllm.read_fields(fields, dict(_settings(row.data, own)))
    return replace(run, start=0)


def _settings(data: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if name.replace("-", "_") in data.keys() - {name}:
            continue  # the client wrote it too
        text = data[name] if isinstance(data[name], str) else json.dumps(data[name])
        yield f"sweep.{name}", text[:MAX_TEXT]


def files_in(folder: Path) -> FolderFiles:
    """Return the results in a folder of a sweep; links in it are not followed.

    :raises ConfigError: if there is none, or the folder holds too much.
    """
    results, left_out = [], []
    for number, entry in enumerate(_entries(folder, MAX_LEVELS)):
        if number >= MAX_FILES:
            raise ConfigError(f"{folder} holds more than {MAX_FILES} files: name one sweep of them")
        path = Path(entry.path)
        if entry.is_symlink():
            left_out.append(f"{path}: a link, which is not followed")
        elif _RUN.fullmatch(entry.name):
            results.append(path)
        elif _FAILURE.fullmatch(entry.name):
            left_out.append(f"{path}: {_failure(path)}")
    if not results:
        raise ConfigError(
            f"{folder} is a folder without a result of vllm bench sweep (run=0.json, at most "
            f"{MAX_LEVELS} levels down): name a file"
        )
    return FolderFiles(results=tuple(sorted(results)), left_out=tuple(sorted(left_out)))


def _entries(folder: Path, levels: int) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = [*itertools.islice(found, MAX_FILES + 1)]
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}") from error
    for entry in entries:
        yield entry
        if levels > 1 and entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), levels - 1)


def _failure(path: Path) -> str:
    """Return why a run of a sweep failed."""
    try:
        (row,) = load_rows(path)
        fields = Fields(row)
        return f"a run that failed: {fields.text('error_type')}: {fields.text('error')}"
    except (ConfigError, ValueError):
        return "a run that failed"
