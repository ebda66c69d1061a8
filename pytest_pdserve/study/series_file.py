"""Reader of files of nights: CSV with columns night, cell, start, run, metric, value, version."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TextIO

from pytest_pdserve.results.calibration import MAX_SERIES_MIB
from pytest_pdserve.results.reading import read_bytes
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS

COLUMNS = ("night", "cell", "start", "run", "metric", "value", "version")
"""Columns that a file must have, in any order; other columns are ignored."""
ALIASES = {
    "out_tok_s": "output_throughput",
    "ttft_mean": "mean_ttft_ms",
    "ttft_p50": "p50_ttft_ms",
    "ttft_p99": "p99_ttft_ms",
    "itl_mean": "mean_itl_ms",
    "itl_p50": "p50_itl_ms",
    "tpot_mean": "mean_tpot_ms",
    "tpot_p50": "p50_tpot_ms",
    "e2e_mean": "mean_e2el_ms",
    "e2e_p50": "p50_e2el_ms",
}
"""Other names of metrics, and the metric that each stands for."""
Run = Mapping[str, float]
"""Values of one run, by metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNight:
    """One night of a file."""

    name: str
    """Its date, ISO 8601."""
    cells: Mapping[str, tuple[Run, ...]]
    """The first run with a result of each start, by cell."""
    versions: tuple[str, ...]
    """Versions that ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFile:
    """The nights of a file."""

    source: Path
    """Path of the file."""
    nights: tuple[FileNight, ...]
    """Oldest first; at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    night: str
    cell: str
    start: str
    run: int
    metric: str
    value: float | None
    version: str

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        return self.night, self.cell, self.start, self.run, self.metric


def load_series(path: Path) -> SeriesFile:
    """Return the nights of a file.

    :raises ConfigError: if the file cannot be read, or a value is invalid; the message names file,
        line and column.
    """
    try:
        content = read_bytes(path, MAX_SERIES_MIB).decode("utf-8-sig")
    except ConfigError as error:
        raise ConfigError(f"--series {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--series {path} is not UTF-8 text: {error.reason}") from error
    rows = list(_rows(path, io.StringIO(content, newline="")))
    if not rows:
        raise ConfigError(f"{path} has no rows, expected at least one")
    by_night: dict[str, list[_Row]] = {}
    for row in rows:
        by_night.setdefault(row.night, []).append(row)
    return SeriesFile(
        source=path, nights=tuple(_night(name, by_night[name]) for name in sorted(by_night))
    )


def _rows(path: Path, file: TextIO) -> Iterator[_Row]:
    reader = csv.reader(file, strict=True)
    seen: dict[tuple[str, str, str, int, str], int] = {}
    header: list[str] | None = None
    try:
        for fields in reader:
            if header is None:
                header = _header(path, fields)
            elif fields:
                row = _row(_Line(path, reader.line_num, header), fields)
                if row.key in seen:
                    raise ConfigError(
                        f"{path}, line {reader.line_num}: the same night, cell, start, run and "
                        f"metric as in line {seen[row.key]}, expected each once"
                    )
                seen[row.key] = reader.line_num
                yield row
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    if header is None:
        raise ConfigError(f"{path} is empty, expected a line with the columns {','.join(COLUMNS)}")


def _header(path: Path, fields: list[str]) -> list[str]:
    names = [field.strip() for field in fields]
    missing = [name for name in COLUMNS if names.count(name) != 1]
    if missing:
        raise ConfigError(
            f"{path}, line 1: column {missing[0]!r} is missing or duplicated, expected "
            f"{','.join(COLUMNS)}"
        )
    return names


@dataclass(frozen=True, slots=True)
class _Line:
    """Position of a row, for messages."""

    path: Path
    number: int
    header: list[str]

    def error(self, column: str, value: str, expected: str) -> ConfigError:
        return ConfigError(
            f"{self.path}, line {self.number}, column {column}: {value[:60]!r}, expected {expected}"
        )


def _row(line: _Line, fields: list[str]) -> _Row:
    if len(fields) != len(line.header):
        raise ConfigError(
            f"{line.path}, line {line.number}: {len(fields)} fields, expected {len(line.header)}"
        )
    text = dict(zip(line.header, (field.strip() for field in fields), strict=True))
    for column in ("cell", "start"):
        if not text[column]:
            raise line.error(column, "", "a name")
    return _Row(
        night=_date(line, text["night"]),
        cell=text["cell"],
        start=text["start"],
        run=_count(line, text["run"]),
        metric=_metric(line, text["metric"]),
        value=_value(line, text["value"]),
        version=text["version"],
    )


def _date(line: _Line, text: str) -> str:
    try:
        if len(text) == len("2025-10-14"):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise line.error("night", text, "a date such as 2025-10-14")


def _count(line: _Line, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise line.error("run", text, "a whole number, 0 or more")
    return int(text)


def _metric(line: _Line, text: str) -> str:
    name = ALIASES.get(text, text)
    if name not in METRICS.measured:
        names = ", ".join((*ALIASES, *METRICS.measured))
        raise line.error("metric", text, f"one of {names}")
    return name


def _value(line: _Line, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise line.error(
            "value", text, "a number above 0, or an empty field for a run without a result"
        )
    return value


def _night(name: str, rows: list[_Row]) -> FileNight:
    runs: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for row in rows:
        if row.value is not None:
            starts = runs.setdefault(row.cell, {})
            starts.setdefault(row.start, {}).setdefault(row.run, {})[row.metric] = row.value
    cells = {
        cell: tuple(of_start[min(of_start)] for of_start in starts.values())
        for cell, starts in runs.items()
    }
    versions = tuple(dict.fromkeys(row.version for row in rows if row.version))
    return FileNight(name=name, cells=cells, versions=versions)
