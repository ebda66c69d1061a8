"""A sound baseline file of drawn nights, as every schema version has it, and changes of it."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.workload import Workload

NIGHTS = 20
TOPOLOGIES = ("1p3d", "dp")
WORKLOADS = tuple(
    Workload(input_len=i, output_len=o, num_prompts=4)
    for i, o in ((512, 256), (512, 512), (1024, 256))
)
TIMES = {
    "mean_itl_ms": 10.0,
    "mean_ttft_ms": 100.0,
    "output_throughput": 500.0,
    "p99_ttft_ms": 180.0,
    "request_throughput": 2.0,
    "mean_tpot_ms": 11.0,
}
"""What a clean run of the first cell shows; every cell is at a level of its own."""
COUNTS = {"completed": 4.0, "failed": 0.0}
CELL = "/cells/1p3d/random-512-256-n4"
CELL_1 = "/topologies/1p3d/random-512-256"
"""The same cell in a file of version 1."""
SESSIONS = [
    {
        "id": f"202608{night + 1:02}T101500-p5-efa",
        "started_at": f"2026-08-{night + 1:02}T10:15:00.000Z",
        "versions": {"vllm": "0.15.1", "nixl": "0.10.1"},
        "nodes": ["node0", "node1"],
    }
    for night in range(NIGHTS)
]


def sound() -> dict[str, Any]:
    """A file of today's version: 20 nights of six cells, with 0.8 % noise."""
    source = random.Random(3)
    cells: dict[str, Any] = {topology: {} for topology in TOPOLOGIES}
    for number, (topology, workload) in enumerate(itertools.product(TOPOLOGIES, WORKLOADS)):
        nights = [
            {
                "session": session["id"],
                "values": {
                    name: value * (1 + number / 4) * math.exp(source.gauss(0, 0.008))
                    for name, value in TIMES.items()
                },
            }
            for session in SESSIONS
        ]
        cells[topology][workload.id] = {"counts": COUNTS, "nights": nights}
    return {
        "schema_version": 3,
        "system": "p5-efa",
        "suite": "sweep",
        "sessions": SESSIONS,
        "cells": cells,
    }


def of_version_2(data: dict[str, Any]) -> dict[str, Any]:
    """The same file as version 2 had it: an envelope for each metric."""
    runs = [{"id": each["id"], "started_at": each["started_at"]} for each in data["sessions"]]
    newest = data["sessions"][-1]
    return {
        "schema_version": 2,
        "system": data["system"],
        "suite": data["suite"],
        "provenance": {
            "date": "2026-08-21",
            "runs": runs,
            "fingerprint": None,
            "versions": newest["versions"],
            "nodes": newest["nodes"],
        },
        "cells": {
            topology: {workload: _envelopes(cell) for workload, cell in cells.items()}
            for topology, cells in data["cells"].items()
        },
    }


def _envelopes(cell: dict[str, Any]) -> dict[str, Any]:
    made = {}
    for name in (*TIMES, *cell["counts"]):
        metric = METRICS[name]
        entry = {"rtol": 0.0, "better": metric.better, "unit": metric.unit, "runs": NIGHTS}
        if name in cell["counts"]:
            made[name] = {**entry, "ref": cell["counts"][name]}
        else:
            values = [night["values"][name] for night in cell["nights"]]
            made[name] = {**entry, "ref": TIMES[name], "rtol": 1.0, "values": values}
    return made


def of_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """The same file as version 1 had it: short workload ids, and sessions by their ids alone."""
    old = {key: value for key, value in of_version_2(data).items() if key != "cells"}
    provenance = {**old["provenance"], "runs": [each["id"] for each in data["sessions"]]}
    topologies = {
        topology: {workload.removesuffix("-n4"): cell for workload, cell in cells.items()}
        for topology, cells in of_version_2(data)["cells"].items()
    }
    return {**old, "schema_version": 1, "provenance": provenance, "topologies": topologies}


SOUND = sound()


def at(data: Any, pointer: str) -> Any:
    """What lies at a JSON pointer."""
    for part in pointer.strip("/").split("/"):
        data = data[int(part) if isinstance(data, list) else part]
    return data


def changed(*changes: tuple[str, Any], of: dict[str, Any] = SOUND) -> str:
    """A sound file with other values at some pointers; ``...`` removes one."""
    data = json.loads(json.dumps(of))  # ten times as fast as copying
    for pointer, value in changes:
        above, _, last = pointer.rpartition("/")
        place: Any = at(data, above) if above else data
        key: Any = int(last) if isinstance(place, list) else last
        if value is ...:
            del place[key]
        else:
            place[key] = value
    return json.dumps(data)


TEXT = changed()
