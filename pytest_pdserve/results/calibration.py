"""Series of runs under unchanged conditions, from stored sessions or a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from pytest_pdserve.results.history import StoredSession
from pytest_pdserve.results.history import starts_of
from pytest_pdserve.results.reading import read_bytes
from pytest_pdserve.results.selection import Selection
from pytest_pdserve.values.calibration import MEASURED
from pytest_pdserve.values.calibration import CalibrationRun
from pytest_pdserve.values.calibration import Series
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload

NEEDED = ("topology", "input_len", "output_len", "num_prompts", "start")
"""Required columns of a CSV file, beside at least one judged metric."""
OPTIONAL = ("night", "order_in_cell", "role")
"""Optional columns."""
_LARGEST = 10_000_000
MAX_SERIES_MIB = 64
"""Maximum size of a CSV file: a million runs of 60 characters each."""


def stored_series(selection: Selection, source: str) -> Series:
    """Return the valid runs of stored sessions.

    :param source: what they were read from, for messages.
    :raises ConfigError: if no run has a judged metric.
    """
    runs = [run for session in selection.sessions for run in _stored_runs(session)]
    if not runs:
        raise ConfigError(
            f"{source}: no valid run has a judged metric and a known number of prompts; expected "
            f"one of {', '.join(METRICS.times)}"
        )
    return Series(source=source, runs=tuple(runs), left_out=tuple(selection.left_out))


def _stored_runs(session: StoredSession) -> Iterator[CalibrationRun]:
    cells: dict[tuple[str, str], list[Record]] = {}
    shared: dict[_SharedStart, str] = {}
    for record in session.records:
        if not record.invalid:
            cells.setdefault((record.topology, record.workload.id), []).append(record)
    for runs in cells.values():
        for number, start in enumerate(starts_of(runs)):
            for order, record in enumerate(start):
                values = {
                    name: value
                    for name in METRICS.times
                    if (value := record.value(name)) is not None and 0 < value < math.inf
                }
                prompts = record.workload.num_prompts
                if values and isinstance(prompts, int):
                    yield CalibrationRun(
                        topology=record.topology,
                        workload=record.workload,
                        prompts=prompts,
                        start=f"{session.run_id} {_start_name(record, number, shared)}",
                        night=session.night,
                        order=order,
                        values=values,
                        load_s=record.timings_s.get("bench"),
                    )


_SharedStart = tuple[int, tuple[tuple[str, tuple[str, ...]], ...]]
"""Number of a start of shared instances, then node and arguments of each: several groups of
topologies may have a start of the same number, with other instances."""


def _start_name(record: Record, number: int, shared: dict[_SharedStart, str]) -> str:
    """Return the name of the start of a run's servers, the same for topologies that share it.

    :param number: number of the start among those of the cell, for a start that is not known.
    :param shared: names of shared starts so far.
    """
    of = f"unknown {number}" if record.start is None else record.start
    name = f"{record.topology} {of}"
    if record.shared_start is None:
        return name
    instances = record.processes[: len(record.nodes)]  # one on each node
    commands = tuple((each.node, each.argv) for each in instances)
    return shared.setdefault((record.shared_start, commands), name)


def load_series(path: Path) -> Series:
    """Read a CSV file: a line of column names, then a line for each run.

    Columns are :data:`NEEDED`, :data:`OPTIONAL` and judged metrics, empty where a run has none.
    Runs of one ``start`` were made on the same servers. Runs of other roles than ``measured`` do
    not count.

    :raises ConfigError: naming file, line and column.
    """
    rows = _rows(path)
    if not rows:
        raise ConfigError(f"{path}: expected at least one line below the header")
    runs: list[CalibrationRun] = []
    lines: dict[tuple[object, ...], int] = {}
    before: Counter[tuple[str, ...]] = Counter()
    for line, row in rows:
        where = f"{path}: line {line}"
        run = _run(row, where, before=before)
        key = (run.cell, run.prompts, run.start, run.role, run.order)
        if key in lines:
            raise ConfigError(
                f"{where}: column order_in_cell: {run.order} of start {run.start!r} is also on "
                f"line {lines[key]}; expected another number for each run of a cell on a start"
            )
        lines[key] = line
        runs.append(run)
    if all(run.role != MEASURED for run in runs):
        raise ConfigError(f"{path}: column role: no run has {MEASURED!r}, expected at least one")
    roles = Counter(run.role for run in runs if run.role != MEASURED)
    unused = [name for name in rows[0][1] if name not in (*NEEDED, *OPTIONAL, *METRICS.times)]
    return Series(
        source=str(path),
        runs=tuple(runs),
        left_out=(
            *(f"{count} runs of role {role!r}" for role, count in roles.items()),
            *([f"columns that are not judged metrics: {', '.join(unused)}"] if unused else []),
        ),
    )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the line number of each run, and its fields by column."""
    try:
        text = read_bytes(path, MAX_SERIES_MIB).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}") from error
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        columns = [name.strip() for name in next(lines, [])]
        _check_columns(columns, path)
        for fields in lines:
            if len(fields) != len(columns) and fields:
                raise ConfigError(
                    f"{path}: line {lines.line_num}: {len(fields)} fields, expected "
                    f"{len(columns)} as in the first line"
                )
            if fields:
                values = (field.strip() for field in fields)
                rows.append((lines.line_num, dict(zip(columns, values, strict=True))))
    except csv.Error as error:
        raise ConfigError(f"{path}: line {lines.line_num}: is not valid CSV: {error}") from error
    return rows


def _check_columns(columns: Sequence[str], path: Path) -> None:
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path}: line 1: column {twice!r} appears twice")
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise ConfigError(
            f"{path}: line 1: column {missing[0]!r} is missing; expected {', '.join(NEEDED)} and "
            "metrics"
        )
    if not any(name in METRICS.times for name in columns):
        raise ConfigError(
            f"{path}: line 1: no column is a judged metric; expected one of "
            f"{', '.join(METRICS.times)}"
        )


def _run(row: Mapping[str, str], where: str, *, before: Counter[tuple[str, ...]]) -> CalibrationRun:
    """Return the run of one line.

    :param before: counts the runs of a cell on a start: their order if no column contains it.
    """
    for name in ("topology", "start"):
        if not row[name]:
            raise ConfigError(f"{where}: column {name}: is empty, expected a name")
    input_len, output_len, prompts = (_integer(row, name, where) for name in NEEDED[1:4])
    values = {name: _value(row, name, where) for name in METRICS.times if row.get(name)}
    if not values:
        raise ConfigError(f"{where}: no metric has a value, expected at least one")
    role = row.get("role") or MEASURED
    key = (*(row[name] for name in NEEDED), role)
    before[key] += 1
    order = before[key] - 1
    if row.get("order_in_cell"):
        order = _integer(row, "order_in_cell", where, minimum=0)
    rate = values.get("output_throughput")
    return CalibrationRun(
        topology=row["topology"],
        workload=Workload(input_len=input_len, output_len=output_len, num_prompts=prompts),
        prompts=prompts,
        start=row["start"],
        night=row.get("night", ""),
        order=order,
        role=role,
        values=values,
        load_s=prompts * output_len / rate if rate else None,
    )


def _integer(row: Mapping[str, str], name: str, where: str, *, minimum: int = 1) -> int:
    text = row[name]
    if not text.isascii() or not text.isdecimal() or not minimum <= int(text[:20]) <= _LARGEST:
        raise ConfigError(
            f"{where}: column {name}: {text[:40]!r}, expected a whole number from {minimum} to "
            f"{_LARGEST:,}"
        )
    return int(text)


def _value(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not 0 < value <= LARGEST:
        raise ConfigError(
            f"{where}: column {name}: {row[name][:40]!r}, expected a number above 0 in "
            f"{METRICS[name].unit}, or an empty field"
        )
    return value
