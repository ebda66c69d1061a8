"""Baselines whose nights a test chooses; nothing of them is a measurement."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from pytest_pdserve.results.baselines import write_baseline
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source

Drawn = Mapping[Key, Mapping[str, Sequence[float]]]
"""Value of each night by metric, by topology and workload id."""


def around(centre: float, *, spread: float, seed: str, nights: int = 20) -> list[float]:
    """Values of so many nights, whose median is *centre*."""
    source = random.Random(seed)
    steps = sorted(source.gauss(0, spread) for _ in range(nights))
    middle = (steps[(nights - 1) // 2] + steps[nights // 2]) / 2
    source.shuffle(steps)
    return [centre * math.exp(step - middle) for step in steps]


def write_nights(
    path: Path,
    cells: Drawn,
    *,
    counts: Mapping[str, float] | None = None,
    versions: Mapping[str, str] | None = None,
) -> None:
    """Write the baseline of a system, the name of its folder, of nights in August, on any host."""
    nights = max(len(values) for metrics in cells.values() for values in metrics.values())
    sources = tuple(
        Source(
            id=f"202608{day:02}T010000-drawn",
            started_at=f"2026-08-{day:02}T01:00:00.000Z",
            versions=versions or {},
        )
        for day in range(1, nights + 1)
    )
    made: dict[str, dict[str, CellBaseline]] = {}
    for (topology, workload), metrics in cells.items():
        made.setdefault(topology, {})[workload] = CellBaseline(
            counts=counts or {},
            nights=tuple(
                Night(
                    session=source.id,
                    starts=3 if number == 0 else 1,
                    values={name: values[number] for name, values in metrics.items()},
                )
                for number, source in enumerate(sources)
            ),
        )
    baseline = Baseline(
        system=path.parent.name, suite="sweep", source=str(path), sessions=sources, cells=made
    )
    write_baseline(path, baseline)
