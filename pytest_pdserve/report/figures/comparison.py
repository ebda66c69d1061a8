"""One metric by topology: over input and output length as in the article, or load by load."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.report.figures.axes import capital
from pytest_pdserve.report.figures.axes import left_out
from pytest_pdserve.report.figures.axes import lengths_axis
from pytest_pdserve.report.figures.axes import metric_label
from pytest_pdserve.report.figures.axes import metric_title
from pytest_pdserve.report.figures.axes import name_of
from pytest_pdserve.report.figures.axes import plural
from pytest_pdserve.report.figures.axes import scale
from pytest_pdserve.report.figures.cells import PlottedCell
from pytest_pdserve.report.figures.plot import Axes
from pytest_pdserve.report.figures.plot import Overlay
from pytest_pdserve.report.figures.plot import Panel
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.style import PAPER
from pytest_pdserve.report.figures.style import TopologyStyle
from pytest_pdserve.report.figures.style import topology_styles
from pytest_pdserve.report.figures.svg import OVERLAY
from pytest_pdserve.values.metrics import METRICS

DEFAULT_METRICS = (
    "output_throughput",
    "request_throughput",
    "mean_ttft_ms",
    "mean_itl_ms",
    "mean_tpot_ms",
    "mean_e2el_ms",
)
"""The article's four, and two more latencies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Cells of which one length varies and the other does not."""

    varies: str
    """``input`` or ``output``."""
    fixed: int
    """The other length, tokens."""
    load: str
    """All else of the load; empty where the figure has one load only."""
    cells: tuple[PlottedCell, ...]
    """At least two lengths of them."""

    @property
    def lengths(self) -> list[int]:
        """The lengths that vary, tokens."""
        return sorted({self.length(cell) for cell in self.cells})

    def length(self, cell: PlottedCell) -> int:
        """Return the length of a cell that varies."""
        assert cell.lengths is not None
        return cell.lengths[self.varies == "output"]

    @property
    def title(self) -> str:
        """Title of the panel."""
        kind, other = ("Prefill", "output") if self.varies == "input" else ("Decode", "input")
        load = f", {self.load}" if self.load else ""
        return f"{kind} panel: {other} {self.fixed} tokens{load}"


def sweeps_of(cells: Iterable[PlottedCell]) -> list[Sweep]:
    """Return every set of cells whose loads differ in one length, the input lengths first."""
    loads: dict[str, list[PlottedCell]] = {}
    for cell in cells:
        if cell.workload is not None and cell.lengths is not None:
            rest = [text for name, text in cell.workload.parts.items() if name != "lengths"]
            loads.setdefault("-".join(rest), []).append(cell)
    found = []
    for load, members in loads.items():
        for place, varies in ((1, "input"), (0, "output")):
            by_fixed: dict[int, list[PlottedCell]] = {}
            for cell in members:
                assert cell.lengths is not None
                by_fixed.setdefault(cell.lengths[place], []).append(cell)
            found += [
                Sweep(varies=varies, fixed=fixed, load=load, cells=tuple(of_fixed))
                for fixed, of_fixed in sorted(by_fixed.items())
                if len({cell.lengths for cell in of_fixed}) > 1
            ]
    if len({sweep.load for sweep in found}) > 1:
        return found
    return [Sweep(varies=s.varies, fixed=s.fixed, load="", cells=s.cells) for s in found]


def sweep_plots(
    cells: Sequence[PlottedCell],
    metrics: Sequence[str],
    overlay: Overlay,
    *,
    max_panels: int | None = None,
) -> Iterator[Plot]:
    """Yield a figure of each metric that cells of a sweep have.

    :param max_panels: panels that a figure has at most; None for all.
    """
    sweeps = sweeps_of(cells)
    for metric in metrics:
        shown = [s for s in sweeps if any(cell.values.get(metric) for cell in s.cells)]
        if shown:
            yield _sweep_plot(metric, shown, overlay, max_panels)


def _sweep_plot(
    metric: str, sweeps: Sequence[Sweep], overlay: Overlay, max_panels: int | None
) -> Plot:
    kept = list(sweeps[:max_panels])
    cells = list({cell.key: cell for sweep in kept for cell in sweep.cells}.values())
    topologies = tuple(topology_styles([cell.topology for cell in cells]))
    every = list(_numbers(metric, cells, overlay))
    panels = tuple(
        Panel(title=sweep.title, draw=_Lines(metric, sweep, overlay, every).draw) for sweep in kept
    )
    more = left_out(len(sweeps) - len(kept), "panel")
    return Plot(
        name=name_of(metric),
        title=capital(metric_title(metric)),
        caption=caption_of(metric, cells, overlay) + more,
        panels=panels,
        rows=[_row(cell, metric, overlay) for cell in cells],
        topologies=topologies,
    )


def _row(cell: PlottedCell, metric: str, overlay: Overlay) -> dict[str, object]:
    article = overlay.cells.get(cell.key, {}).get(metric)
    return {**cell.row(metric, METRICS[metric].unit), "article": article}


def _numbers(metric: str, cells: Iterable[PlottedCell], overlay: Overlay) -> Iterator[float]:
    """Yield every number that a figure shows, so that its axes have room for all."""
    for cell in cells:
        yield from cell.values.get(metric, ())
        if (bounds := cell.bounds.get(metric)) is not None:
            yield from (bounds.reference, bounds.limit)
        if (article := overlay.cells.get(cell.key, {}).get(metric)) is not None:
            yield article


def caption_of(metric: str, cells: Sequence[PlottedCell], overlay: Overlay) -> str:
    """Return how to read a figure of *cells*: what of bars, bands and marks is in it."""
    better = METRICS[metric].better
    sentences = [f"{capital(better)} is better."] if better != "equal" else []
    if any(len(cell.values.get(metric, ())) > 1 for cell in cells):
        sentences.append("Points are medians of the starts of the servers, bars their whole range.")
    if any(metric in cell.bounds for cell in cells):
        sentences.append("Bands reach from the reference to the limit.")
    invalid = sum(bool(cell.invalid) for cell in cells)
    if invalid:
        verb = "is" if invalid == 1 else "are"
        sentences.append(f"{plural(invalid, 'cell')} marked × {verb} invalid and not judged.")
    missing = sum(not cell.values.get(metric) for cell in cells)
    if missing:
        verb = "has" if missing == 1 else "have"
        sentences.append(f"{plural(missing, 'cell')} {verb} no value that may be used.")
    if any(metric in overlay.cells.get(cell.key, {}) for cell in cells):
        sentences.append(f"Dashed: {overlay.title}.")
    return " ".join(sentences)


@dataclass(frozen=True, slots=True)
class _Lines:
    """A panel of one sweep: a line for each topology."""

    metric: str
    sweep: Sweep
    overlay: Overlay
    every: Sequence[float]

    def draw(self, axes: Axes) -> None:
        lengths_axis(axes, self.sweep.lengths, f"{self.sweep.varies} length (tokens)")
        scale(axes.yaxis, self.every)
        axes.set_ylabel(metric_label(self.metric))
        for name, style in topology_styles([cell.topology for cell in self.sweep.cells]).items():
            cells = {self.sweep.length(c): c for c in self.sweep.cells if c.topology == name}
            self._band(axes, cells, style)
            self._article(axes, cells, style)
            self._line(axes, cells, style)
            self._invalid(axes, cells, style)

    def _line(self, axes: Axes, cells: dict[int, PlottedCell], style: TopologyStyle) -> None:
        """Draw the valid cells; a length without a value leaves a gap."""
        lengths = self.sweep.lengths
        valid = {n: c for n, c in cells.items() if not c.invalid and c.values.get(self.metric)}
        middle = [_or_nan(valid[n].value(self.metric)) if n in valid else math.nan for n in lengths]
        self._ranges(axes, valid, style)
        axes.plot(
            lengths, middle, color=style.color, marker=style.mark, markeredgecolor=PAPER, zorder=3
        )

    def _ranges(self, axes: Axes, cells: dict[int, PlottedCell], style: TopologyStyle) -> None:
        found = {n: c.values[self.metric] for n, c in cells.items()}
        several = {n: values for n, values in found.items() if min(values) < max(values)}
        across = [x for length in several for x in (length, length, math.nan)]
        up = [y for values in several.values() for y in (min(values), max(values), math.nan)]
        axes.plot(across, up, color=style.color, linewidth=4, alpha=0.45, solid_capstyle="butt")

    def _invalid(self, axes: Axes, cells: dict[int, PlottedCell], style: TopologyStyle) -> None:
        marked = [(n, c.value(self.metric)) for n, c in cells.items() if c.invalid]
        there = [(length, value) for length, value in marked if value is not None]
        if there:
            mark_invalid(axes, there, style)

    def _band(self, axes: Axes, cells: dict[int, PlottedCell], style: TopologyStyle) -> None:
        bounds = {
            n: cells[n].bounds[self.metric] for n in sorted(cells) if self.metric in cells[n].bounds
        }
        if not bounds:
            return
        axes.fill_between(
            list(bounds),
            [each.reference for each in bounds.values()],
            [each.limit for each in bounds.values()],
            color=style.color,
            alpha=0.16,
            linewidth=0,
            zorder=1,
        )

    def _article(self, axes: Axes, cells: dict[int, PlottedCell], style: TopologyStyle) -> None:
        published = {
            n: self.overlay.cells[cells[n].key][self.metric]
            for n in sorted(cells)
            if self.metric in self.overlay.cells.get(cells[n].key, {})
        }
        if published:
            axes.plot(
                list(published),
                list(published.values()),
                color=style.color,
                linestyle=(0, (3, 2)),
                linewidth=1.1,
                alpha=0.8,
                gid=f"{OVERLAY}-{self.metric}",
                zorder=2,
            )


def mark_invalid(axes: Axes, points: Sequence[tuple[float, float]], style: TopologyStyle) -> None:
    """Mark values of invalid cells."""
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=style.color,
        linestyle="none",
        marker="x",
        markersize=8,
        markeredgewidth=2,
        zorder=4,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
