"""Migrations of stored files to the next schema version; measured values stay unchanged.

Only migrations parse run ids and paths: files of version 1 contain some facts nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.system import System

_MEDIAN = re.compile(r"median_(.+)")


def record_from_1(data: Mapping[str, Any], given: Any = None) -> dict[str, Any]:
    """Convert a record to version 2: session and start are fields, workload ids are complete."""
    del given
    new = {key: value for key, value in data.items() if key != "run_id"}
    processes = data["processes"]
    cluster = data.get("cluster", {})
    return {
        **new,
        "schema_version": 2,
        "session": _session(data["run_id"], cluster.get("night")),
        "start": _start(processes[0]["log"]) if processes else None,
        "workload": _workload(data["workload"], imported="imported_from" in data["host"]),
        "metrics": dict(_metrics(data["metrics"])),
        "findings": [
            {**each, "severity": each["severity"].replace("insane", "invalid")}
            for each in data["findings"]
        ],
    }


def baseline_from_1(data: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """Convert a baseline to version 2: workload ids name the number of prompts and the load.

    Version 1 names only lengths and rate: the rest is taken from the system's sweep.

    :param given: the system that the file belongs to.
    :raises ConfigError: if a cell is not one of the system's sweep.
    """
    assert isinstance(given, System)
    ids = {_id_1(workload): workload.id for workload in given.sweep.workloads()}
    for topology, workloads in data["topologies"].items():
        for old in workloads:
            if old not in ids:
                raise ConfigError(
                    f"/topologies/{topology}/{old}: schema version 1 does not say how many prompts "
                    "it had, and the sweep of the system file has no cell of this name; remove it "
                    "from the file, or put it back into [sweep]"
                )
    cells = {
        topology: {ids[old]: dict(_metrics(metrics)) for old, metrics in workloads.items()}
        for topology, workloads in data["topologies"].items()
    }
    new = {key: value for key, value in data.items() if key != "topologies"}
    return {**new, "schema_version": 2, "provenance": _sources(data["provenance"]), "cells": cells}


def baseline_from_2(data: Mapping[str, Any], given: Any = None) -> dict[str, Any]:
    """Convert a baseline to version 3, which has the nights of each cell in place of envelopes.

    An envelope without values was the mean of some runs: it becomes the last session's night.
    """
    del given
    sources = data["provenance"]
    versions, nodes = sources.get("versions", {}), sources.get("nodes", [])
    sessions = [{**run, "versions": versions, "nodes": nodes} for run in sources["runs"]]
    new = {
        "schema_version": 3,
        "system": data["system"],
        "suite": data["suite"],
        "sessions": sessions,
        "cells": {
            topology: {
                workload: cell
                for workload, metrics in cells.items()
                if (cell := _nights(metrics, [run["id"] for run in sources["runs"]]))
            }
            for topology, cells in data["cells"].items()
        },
    }
    names = ("fingerprint", "host", "approver", "note")
    kept = {name: sources[name] for name in names if name in sources}
    if "approver" in sources:
        kept["accepted_on"] = sources["date"]
    return {**new, **{name: value for name, value in kept.items() if value is not None}}


def _nights(metrics: Mapping[str, Any], ids: list[str]) -> dict[str, Any] | None:
    """Return a cell of version 3; None if it has only counts."""
    nights: dict[str, dict[str, float]] = {}
    counts = {}
    for name, entry in metrics.items():
        if entry["better"] == "equal":
            counts[name] = entry["ref"]
            continue
        values = entry.get("values") or [*[None] * (len(ids) - 1), entry["ref"]]
        for run, value in zip(ids, values, strict=True):
            if value is not None:
                nights.setdefault(run, {})[name] = value
    if not nights:
        return None
    return {
        "counts": counts,
        "nights": [{"session": run, "values": nights[run]} for run in ids if run in nights],
    }


def _sources(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, "runs": [_session(run) for run in data["runs"]]}


def _session(run_id: str, night: int | None = None) -> dict[str, Any]:
    """Return a session from its id of version 1, which begins with its time."""
    try:
        began = utc_text(datetime.strptime(run_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC))
    except ValueError:
        began = None
    return {"id": run_id, "started_at": began, "simulated_night": night}


def _start(log: str) -> int:
    """Return the start of the servers: version 1 had log folders ``logs``, ``logs-2``, …."""
    match = re.search(r"logs-(\d+)/[^/]*$", log)
    return int(match[1]) - 1 if match else 0


def _workload(data: Mapping[str, Any], *, imported: bool) -> dict[str, Any]:
    rate = data["request_rate"]
    lengths = data["dataset"] == "random"
    return {
        "dataset": data["dataset"],
        "input_len": data["input_len"] if lengths else None,
        "output_len": data["output_len"] if lengths else None,
        "num_prompts": data["num_prompts"],
        "request_rate": None if rate == "inf" else rate,
        "max_concurrency": data["max_concurrency"],
        "burstiness": "unknown" if imported else 1.0,
        "options": "unknown" if imported else data["options"],
    }


def _id_1(workload: Any) -> str:
    """Return the id of *workload* in version 1."""
    rate = workload.request_rate
    lengths = "{}-{}".format(*(workload.lengths or (0, 0)))
    return f"{workload.dataset}-{lengths}" + ("" if rate is None else f"-rate{rate:g}")


def _metrics(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield metrics of version 2, which names the median as the 50th percentile."""
    for name, value in data.items():
        match = _MEDIAN.fullmatch(name)
        if match is None:
            yield name, value
        elif f"p50_{match[1]}" not in data:
            yield f"p50_{match[1]}", value
