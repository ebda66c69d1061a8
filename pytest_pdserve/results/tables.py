"""CSV tables of nightly values: one line per value, grouped to one result per run."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pdserve.results.documents import MAX_MIB
from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.reading import read_text
from pytest_pdserve.values.errors import ConfigError

SUFFIX = ".csv"
MAX_RUNS = 20_000
"""Maximum runs in one table; a year of 45 cells has 16,425."""
NEEDED = ("night", "workload", "metric", "value")
_ALIASES = {"cell": "workload"}
"""Other accepted names of columns."""
_RUN = ("night", "topology", "workload", "start", "run", "version")
"""Columns that identify a run, as far as a table has them."""
METRICS = "metrics"
"""Key of a row's values by metric."""
Runs = Mapping[tuple[str, ...], tuple[int, dict[str, Any], dict[str, float]]]
"""First line, columns and values of each run."""


def tables_at(path: Path) -> list[Path]:
    """Return *path* if its name is that of a CSV table, or the tables in it if it is a folder.

    If no table in a folder has the columns, the folder is of another tool, e.g. a sweep.
    """
    if not os.path.isdir(path):  # unlike is_dir, also False for a name that is too long
        return [path] if path.suffix.lower() == SUFFIX else []
    found = sorted(each for each in path.iterdir() if each.suffix.lower() == SUFFIX)
    return found if any(map(_has_columns, found)) else []


def _has_columns(path: Path) -> bool:
    try:
        _columns(next(csv.reader(io.StringIO(read_text(path, MAX_MIB))), []), path)
    except (ConfigError, csv.Error):
        return False
    return True


def load_table(path: Path) -> tuple[list[Row], list[str]]:
    """Read a table; return a row for each run, and a sentence on each run without a value.

    A row has the run's columns and, as ``metrics``, its values by metric.

    :raises ConfigError: if it cannot be read, lacks a column, or holds what is not a number.
    """
    reader = csv.reader(io.StringIO(read_text(path, MAX_MIB)), strict=True)
    runs: dict[tuple[str, ...], tuple[int, dict[str, Any], dict[str, float]]] = {}
    try:
        names = _columns(next(reader, []), path)
        for number, cells in enumerate(reader, 2):
            if not cells:
                continue
            line = dict(zip(names, cells, strict=False))
            if len(cells) != len(names):
                raise ConfigError(f"{path} line {number}: {len(cells)} values, not {len(names)}")
            key = tuple(line.get(name, "") for name in _RUN)
            columns = {name: line[name] for name in _RUN if line.get(name)}
            _, _, values = runs.setdefault(key, (number, columns, {}))
            values.update(_value(line, f"{path} line {number}"))
            if len(runs) > MAX_RUNS:
                raise ConfigError(f"{path} has more than {MAX_RUNS} runs: split it")
    except csv.Error as error:
        raise ConfigError(f"{path} is not a valid CSV file: {error}") from error
    if not runs:
        raise ConfigError(f"{path} has no line of values below its header")
    return list(_rows(runs, path)), list(_empty(runs, path))


def _columns(header: list[str], path: Path) -> list[str]:
    names = [_ALIASES.get(name, name) for name in (each.strip() for each in header)]
    missing = [name for name in NEEDED if name not in names]
    if missing or len(set(names)) < len(names):
        raise ConfigError(
            f"{path}: header {','.join(header)!r:.120}: expected each of {', '.join(NEEDED)} once, "
            "and topology, start, run, version where they are known"
        )
    return names


def _value(line: Mapping[str, str], where: str) -> dict[str, float]:
    """Return the value of one line by metric; empty if the line has no value."""
    name, text = line["metric"].strip(), line["value"].strip()
    if not text:
        return {}
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{where}: value {text!r:.60}: expected a number") from error
    if not (0 <= value < float("inf")):
        raise ConfigError(f"{where}: value {text!r:.60}: expected a number from 0")
    return {name: value}


def _rows(runs: Runs, path: Path) -> Iterator[Row]:
    starts: dict[str, dict[str, int]] = {}
    for number, columns, values in runs.values():
        if not values:
            continue
        numbered = dict(columns)
        if "start" in columns:  # counted from 0 in each night, whatever its name is
            of_night = starts.setdefault(columns["night"], {})
            numbered["start"] = of_night.setdefault(columns["start"], len(of_night))
        yield Row(where=f"{path} line {number}", data={**numbered, METRICS: values})


def _empty(runs: Runs, path: Path) -> Iterator[str]:
    for number, columns, values in runs.values():
        if not values:
            what = " ".join(
                str(columns[name]) for name in ("night", "topology", "workload") if name in columns
            )
            yield (
                f"{path} line {number}: {what}: the run has no value: it failed or was interrupted"
            )
