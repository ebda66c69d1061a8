"""Cells that are in no sweep of lengths: a row for each load, a mark for each topology."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.report.figures.axes import capital
from pytest_pdserve.report.figures.axes import left_out
from pytest_pdserve.report.figures.axes import metric_label
from pytest_pdserve.report.figures.axes import metric_title
from pytest_pdserve.report.figures.axes import name_of
from pytest_pdserve.report.figures.axes import scale
from pytest_pdserve.report.figures.cells import PlottedCell
from pytest_pdserve.report.figures.comparison import caption_of
from pytest_pdserve.report.figures.comparison import mark_invalid
from pytest_pdserve.report.figures.comparison import sweeps_of
from pytest_pdserve.report.figures.plot import Axes
from pytest_pdserve.report.figures.plot import Overlay
from pytest_pdserve.report.figures.plot import Panel
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.style import PAPER
from pytest_pdserve.report.figures.style import topology_styles
from pytest_pdserve.report.names import short_names
from pytest_pdserve.values.metrics import METRICS

ROWS = 24
"""Loads of one panel."""
_LONGEST = 30
"""Letters of a load's name."""
_ROW, _AROUND = 24, 80
"""Pixels of a row, and of title and axis."""


def load_plots(
    cells: Sequence[PlottedCell], metrics: Sequence[str], *, max_panels: int | None = None
) -> Iterator[Plot]:
    """Yield a figure of each metric that cells outside of sweeps have.

    :param max_panels: panels that a figure has at most; None for all.
    """
    swept = {cell.key for sweep in sweeps_of(cells) for cell in sweep.cells}
    rest = [cell for cell in cells if cell.key not in swept]
    for metric in metrics:
        shown = [cell for cell in rest if cell.values.get(metric)]
        if shown:
            yield _plot(metric, shown, max_panels)


def _plot(metric: str, cells: Sequence[PlottedCell], max_panels: int | None) -> Plot:
    loads = list(dict.fromkeys(cell.workload_id for cell in cells))
    pages = [loads[start : start + ROWS] for start in range(0, len(loads), ROWS)]
    kept = pages[:max_panels]
    inside = {name for page in kept for name in page}
    shown = [cell for cell in cells if cell.workload_id in inside]
    names, shared = _names(shown)
    left = 24 + 7 * max(len(name) for name in names.values())
    panels = tuple(
        Panel(
            title=f"Load {shared}".strip() if shared else "By load",
            draw=_Rows(metric, page, [c for c in shown if c.workload_id in page], names).draw,
            size=(420 + left // 2, _AROUND + _ROW * len(page)),
            left=left,
        )
        for page in kept
    )
    more = left_out(len(loads) - len(inside), "load")
    return Plot(
        name=f"{name_of(metric)}-by-load",
        title=f"{capital(metric_title(metric))} by load",
        caption=caption_of(metric, shown, Overlay()) + more,
        panels=panels,
        rows=[cell.row(metric, METRICS[metric].unit) for cell in shown],
        topologies=tuple(topology_styles([cell.topology for cell in shown])),
    )


def _names(cells: Sequence[PlottedCell]) -> tuple[dict[str, str], str]:
    """Return a short name of each load, and what all of them share."""
    workloads = {cell.workload_id: cell.workload for cell in cells}
    known = [each for each in workloads.values() if each is not None]
    short = short_names(known)
    names = {name: short.names.get(name, name) for name in workloads}
    if len(known) < len(workloads):
        names = {name: name for name in workloads}
    shared = short.shared if len(known) == len(workloads) else ""
    return {name: shortened(text) for name, text in names.items()}, shared


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return *text* with its middle left out where it is too long for a label."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


@dataclass(frozen=True, slots=True)
class _Rows:
    """A panel: loads from top to bottom."""

    metric: str
    loads: Sequence[str]
    cells: Sequence[PlottedCell]
    names: dict[str, str]

    def draw(self, axes: Axes) -> None:
        shown = topology_styles([cell.topology for cell in self.cells])
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.set_yticks(range(len(self.loads)), [self.names[name] for name in self.loads])
        axes.set_ylim(len(self.loads) - 0.5, -0.5)
        for place, (name, style) in enumerate(shown.items()):
            shift = (place - (len(shown) - 1) / 2) * 0.7 / max(len(shown), 4)
            for cell in (each for each in self.cells if each.topology == name):
                y, found = self.loads.index(cell.workload_id) + shift, cell.values[self.metric]
                value = cell.value(self.metric) or 0.0
                if (bounds := cell.bounds.get(self.metric)) is not None:
                    ends = [bounds.reference, bounds.limit]
                    axes.plot(ends, [y, y], color=style.color, alpha=0.25, linewidth=6, zorder=1)
                if cell.invalid:
                    mark_invalid(axes, [(value, y)], style)
                    continue
                axes.plot([min(found), max(found)], [y, y], color=style.color, linewidth=1)
                axes.plot([value], [y], color=style.color, marker=style.mark, markeredgecolor=PAPER)
        bounds_there = (c.bounds[self.metric] for c in self.cells if self.metric in c.bounds)
        ends_there = [end for each in bounds_there for end in (each.reference, each.limit)]
        values = [value for cell in self.cells for value in cell.values[self.metric]]
        scale(axes.xaxis, [*values, *ends_there])
        axes.set_xlabel(metric_label(self.metric))
