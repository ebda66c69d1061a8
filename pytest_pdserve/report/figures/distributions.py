"""Figures of how TTFT and ITL are distributed over the requests of each cell."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.report.figures.axes import left_out
from pytest_pdserve.report.figures.axes import plural
from pytest_pdserve.report.figures.axes import scale
from pytest_pdserve.report.figures.cells import PlottedCell
from pytest_pdserve.report.figures.loads import shortened
from pytest_pdserve.report.figures.plot import Axes
from pytest_pdserve.report.figures.plot import Panel
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.style import topology_styles
from pytest_pdserve.values.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SHARES = tuple(number / 200 for number in range(1, 200))
"""Shares of the requests, or of the gaps, that are drawn: half a percent apart."""
_SHOWN = ("ttft", "itl")
_TITLES = {"ttft": "time to first token (TTFT)", "itl": "gaps between tokens (ITL)"}
_COUNTED = {"ttft": "requests", "itl": "gaps between tokens"}


@dataclass(frozen=True, slots=True)
class _Curve:
    """The distribution of one cell."""

    cell: PlottedCell
    quantiles: tuple[float, ...]
    """In ms, at :data:`SHARES`."""
    count: int
    """Of what they are quantiles."""


def distribution_plots(
    cells: Sequence[PlottedCell], *, max_panels: int | None = None
) -> Iterator[Plot]:
    """Yield the distributions of TTFT and of ITL, a panel for each load; of the first run of each.

    :param max_panels: panels that a figure has at most; None for all.
    """
    loads = list(dict.fromkeys(cell.workload_id for cell in cells if cell.requests))
    kept = set(loads[:max_panels])
    found: dict[str, list[_Curve]] = {name: [] for name in _SHOWN}
    for cell in cells:
        if cell.requests and cell.workload_id in kept:
            for name, curve in _curves(cell).items():
                found[name].append(curve)
    more = left_out(len(loads) - len(kept), "load")
    for name, curves in found.items():
        if curves:
            yield _plot(name, curves, more)


def _curves(cell: PlottedCell) -> dict[str, _Curve]:
    """Return the distributions of a cell; those of what its requests do not hold are missing."""
    import numpy as np

    try:
        samples = _samples(cell.requests[0])
    except ConfigError:
        return {}
    return {
        name: _Curve(cell, tuple(float(q) for q in np.quantile(values, SHARES)), len(values))
        for name, values in samples.items()
        if len(values)
    }


def _samples(path: Path) -> dict[str, Floats]:
    """Return TTFT and ITL of all completed requests of a run, ms.

    :raises ConfigError: if the file cannot be read.
    """
    import numpy as np
    import pyarrow.parquet as pq

    try:
        table: Any = pq.read_table(path, columns=["ttft_us", "itl_us", "error"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read as requests: {error}") from error
    completed = table.filter(table["error"].is_null())
    gaps = completed["itl_us"].combine_chunks().flatten()
    columns = {"ttft": completed["ttft_us"], "itl": gaps}
    return {
        name: np.asarray(column.drop_null().to_numpy(), dtype=float) / 1000
        for name, column in columns.items()
    }


def _plot(name: str, curves: Sequence[_Curve], more: str) -> Plot:
    panels: dict[str, list[_Curve]] = {}
    for curve in curves:
        panels.setdefault(curve.cell.workload_id, []).append(curve)
    invalid = sum(bool(curve.cell.invalid) for curve in curves)
    dotted = f" {plural(invalid, 'invalid cell')}: dotted." if invalid else ""
    return Plot(
        name=f"{name}-distribution",
        title=f"Distribution of {_TITLES[name]}",
        caption=(
            f"Share of the {_COUNTED[name]} of one run that took no longer; further left is better."
            f"{dotted}{more}"
        ),
        panels=tuple(
            Panel(title=_title(found[0].cell), draw=_Curves(name, found).draw, size=(310, 260))
            for found in panels.values()
        ),
        rows=[row for curve in curves for row in _rows(name, curve)],
        topologies=tuple(topology_styles([curve.cell.topology for curve in curves])),
        columns=4,
    )


def _title(cell: PlottedCell) -> str:
    if cell.lengths is None or cell.workload is None:
        return shortened(cell.workload_id, 40)
    more = [t for n, t in cell.workload.parts.items() if n in ("rate", "concurrency", "ramp-up")]
    return shortened(", ".join(["input {:d}, output {:d}".format(*cell.lengths), *more]), 40)


def _rows(name: str, curve: _Curve) -> Iterator[dict[str, object]]:
    for share, value in zip(SHARES, curve.quantiles, strict=True):
        yield {
            "topology": curve.cell.topology,
            "workload": curve.cell.workload_id,
            "quantity": name,
            "share": share,
            "value_ms": value,
            "count": curve.count,
            "invalid": curve.cell.invalid,
        }


@dataclass(frozen=True, slots=True)
class _Curves:
    """A panel of one load."""

    name: str
    curves: Sequence[_Curve]

    def draw(self, axes: Axes) -> None:
        shown = topology_styles([curve.cell.topology for curve in self.curves])
        thinned = [*range(9), *range(9, 190, 5), *range(190, len(SHARES))]
        for curve in self.curves:
            axes.plot(
                [curve.quantiles[place] for place in thinned],
                [100 * SHARES[place] for place in thinned],
                color=shown[curve.cell.topology].color,
                marker=shown[curve.cell.topology].mark,
                markevery=[thinned.index(99)],
                linestyle=":" if curve.cell.invalid else "-",
            )
        axes.grid(axis="x", visible=True)
        scale(axes.xaxis, [value for curve in self.curves for value in curve.quantiles])
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_ylabel("share (%)")
        axes.set_xlabel(f"{self.name.upper()} (ms)")
