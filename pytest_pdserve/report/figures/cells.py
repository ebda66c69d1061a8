"""Cells as figures show them: values of every start, limits, and whether they are invalid."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_pdserve.plan.placement import place
from pytest_pdserve.report.figures.plot import Bounds
from pytest_pdserve.report.figures.plot import Row
from pytest_pdserve.results.measured import NO_CLIENT
from pytest_pdserve.results.measured import is_simulated
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

Key = tuple[str, str]
"""Topology and workload id."""
GPU, SLOT = "GPU", "slot of the CPU"
"""What throughput is divided by: a machine without GPUs has slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlottedCell:
    """One cell of a figure."""

    topology: str
    """Topology id."""
    workload_id: str
    """Workload id."""
    workload: Workload | None
    """The load; None where only its id is known."""
    values: Mapping[str, tuple[float, ...]]
    """By metric, the median of the runs of each start, finite ones only."""
    invalid: str = ""
    """Why it is not judged; empty of a valid one."""
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """Reference and limit by metric."""
    devices: tuple[int, str] | None = None
    """How many GPUs, or slots of a CPU, serve it, and which of the two; None if unknown."""
    requests: tuple[Path, ...] = ()
    """Files of its requests, one a run."""

    @property
    def key(self) -> Key:
        """Topology and workload id."""
        return self.topology, self.workload_id

    @property
    def lengths(self) -> tuple[int, int] | None:
        """Input and output length, tokens; None where the load has none."""
        return None if self.workload is None else self.workload.lengths

    def value(self, metric: str) -> float | None:
        """Return the median of the starts; None if there is none."""
        found = self.values.get(metric)
        return statistics.median(found) if found else None

    def row(self, metric: str, unit: str) -> Row:
        """Return what a figure shows of one metric, as a row of its data."""
        found, bounds = self.values.get(metric, ()), self.bounds.get(metric)
        lengths = self.lengths or (None, None)
        return {
            "topology": self.topology,
            "workload": self.workload_id,
            "input_len": lengths[0],
            "output_len": lengths[1],
            "metric": metric,
            "unit": unit,
            "value": self.value(metric),
            "lowest": min(found, default=None),
            "highest": max(found, default=None),
            "starts": len(found),
            "reference": bounds.reference if bounds else None,
            "limit": bounds.limit if bounds else None,
            "invalid": self.invalid,
        }


def cells_of(
    runs: Iterable[MeasuredRun],
    *,
    bounds: Mapping[Key, Mapping[str, Bounds]] | None = None,
    requests: Mapping[Key, Sequence[Path]] | None = None,
) -> tuple[PlottedCell, ...]:
    """Return the cells that *runs* are of, in their order.

    :param bounds: reference and limit, by cell and metric.
    :param requests: files of requests by cell.
    """
    cells: dict[Key, list[MeasuredRun]] = {}
    for run in runs:
        cells.setdefault(run.key, []).append(run)
    return tuple(
        PlottedCell(
            topology=key[0],
            workload_id=key[1],
            workload=of_cell[0].workload,
            values=_values(of_cell),
            invalid=next((why for run in of_cell for why in run.invalid), ""),
            bounds=(bounds or {}).get(key, {}),
            devices=devices_of(of_cell[0]),
            requests=tuple((requests or {}).get(key, ())),
        )
        for key, of_cell in cells.items()
    )


def _values(runs: Sequence[MeasuredRun]) -> dict[str, tuple[float, ...]]:
    """Return the median of the runs of each start, by metric; without what sanity voids."""
    starts: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for run in runs:
        for name, value in run.metrics.items():
            if math.isfinite(value) and name not in run.voids:
                starts.setdefault(name, {}).setdefault(run.evidence, []).append(value)
    return {
        name: tuple(statistics.median(found) for found in of_metric.values())
        for name, of_metric in starts.items()
    }


def devices_of(run: MeasuredRun) -> tuple[int, str] | None:
    """Return how many GPUs, or slots of a CPU, a topology takes of the system of *run*.

    :returns: the number and which of the two; None where the run does not say what it ran on.
    """
    settings, hardware = run.facts.get("settings", {}), run.facts.get("hardware", {})
    try:
        nodes, each = (int(settings[f"cluster.{name}"]) for name in ("nodes", "gpus_per_node"))
        names = tuple(f"node{number}" for number in range(nodes))
        size = place(Topology.parse(run.topology), names, each).size
    except (KeyError, ValueError, ConfigError, PlacementError):
        return None
    stands_for_gpus = is_simulated(run) or run.client == NO_CLIENT
    has_gpus = stands_for_gpus or bool(hardware.get("gpu") or hardware.get("GPUs"))
    return size.gpus, GPU if has_gpus else SLOT


def bounds_of(report: Report) -> dict[Key, dict[str, Bounds]]:
    """Return reference and limit of every judged metric of a report, by cell."""
    return {
        (verdict.topologies[0], verdict.workload): dict(_bounds(verdict))
        for verdict in report.verdicts
        if verdict.kind == "cell" and verdict.workload is not None
    }


def _bounds(verdict: VerdictReport) -> Iterator[tuple[str, Bounds]]:
    for each in verdict.metrics:
        if each.reference is not None and each.limit is not None:
            limit = each.reference * (1 + each.limit)
            yield each.metric, Bounds(reference=each.reference, limit=limit)
