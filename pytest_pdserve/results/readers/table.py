"""Runs of a CSV table of nightly values: ``night,topology,workload,metric,value``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any

from pytest_pdserve.results.documents import Row
from pytest_pdserve.results.foreign import Fields
from pytest_pdserve.results.foreign import ForeignRun
from pytest_pdserve.results.foreign import moment
from pytest_pdserve.results.tables import METRICS as VALUES
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import parse_topologies
from pytest_pdserve.values.workload import UNKNOWN

TEXT = "CSV tables of nightly values (night,topology,workload,metric,value)"
CLIENT = "table"
"""Kind of client of values from a table, which does not name the client."""
_MAX_NAME = 60
_SPELLED = re.compile(r"(ttft|itl|tpot|e2el?|e2e_latency)_(mean|median|p\d+(?:\.\d+)?)(?:_ms)?")
_ALIASES = {"out_tok_s": "output_throughput", "req_s": "request_throughput"}


def reads(row: Mapping[str, Any]) -> bool:
    """Tell whether *row* is a run of a table."""
    return isinstance(row.get(VALUES), dict) and {"night", "workload"} <= row.keys()


def read(row: Row) -> ForeignRun:
    """Return the run of a row of a table.

    The workload column becomes the data set of the workload: its other fields are unknown.

    :raises ConfigError: if its night is not a date, or its topology is not a topology.
    """
    fields = Fields(row)
    date = _night(fields)
    topology = fields.text("topology")
    version = fields.text("version")
    fields.skip("run", VALUES)
    named = {_metric(name): value for name, value in row.data[VALUES].items()}
    metrics = {name: value for name, value in named.items() if name is not None}
    return ForeignRun(
        client_kind=CLIENT,
        where=row.where,
        load={"dataset": _dataset(fields)},
        result=BenchResult(
            completed=None,
            failed=None,
            duration_s=float("nan"),
            total_input_tokens=None,
            total_output_tokens=None,
            raw=metrics,
        ),
        date=date,
        topology=_topology(topology, row.where),
        versions={"vllm": version} if version else {},
        start=fields.count("start"),
        not_understood=tuple(_unknown(row.data[VALUES])),
    )


def _night(fields: Fields) -> datetime:
    found = moment(fields.take("night"))
    if found is None:
        raise fields.wrong("night", "a date such as 2026-11-28")
    return found.astimezone(UTC)


def _topology(text: str | None, where: str) -> str | None:
    if text is None:
        return None
    try:
        (topology,) = parse_topologies(text)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return topology.id


def _dataset(fields: Fields) -> str:
    text = fields.text("workload")
    if text is None:
        raise fields.wrong("workload", "the name of a load")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
    if not name or len(name) > _MAX_NAME or name == UNKNOWN:
        raise fields.wrong("workload", f"a name of at most {_MAX_NAME} letters and digits")
    return name


def _metric(name: str) -> str | None:
    """Return the name of a metric in pdserve; None if unknown."""
    if (match := _SPELLED.fullmatch(name)) is not None:
        quantity = "e2el" if match[1].startswith("e2e") else match[1]
        name = f"{match[2].replace('median', 'p50')}_{quantity}_ms"
    name = _ALIASES.get(name, name)
    names = {alias: row.name for row in METRICS.values() for alias in (row.name, *row.aliases)}
    return names.get(name)


def _unknown(values: Mapping[str, float]) -> Iterator[str]:
    return (name for name in values if _metric(name) is None)
