"""Latency against throughput of each GPU, and which topologies no other one beats in both."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.report.figures.axes import left_out
from pytest_pdserve.report.figures.axes import metric_label
from pytest_pdserve.report.figures.axes import name_of
from pytest_pdserve.report.figures.axes import scale
from pytest_pdserve.report.figures.cells import PlottedCell
from pytest_pdserve.report.figures.comparison import mark_invalid
from pytest_pdserve.report.figures.plot import Axes
from pytest_pdserve.report.figures.plot import Panel
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.style import GREY
from pytest_pdserve.report.figures.style import PAPER
from pytest_pdserve.report.figures.style import topology_styles
from pytest_pdserve.values.metrics import METRICS

THROUGHPUT = "output_throughput"
LATENCIES = ("mean_itl_ms", "mean_ttft_ms")


@dataclass(frozen=True, slots=True)
class Choice:
    """One cell as a choice between throughput and latency."""

    cell: PlottedCell
    throughput: float
    """Output tokens/s of each GPU."""
    latency: float
    """In ms."""


def frontier(choices: Iterable[Choice]) -> list[Choice]:
    """Return the choices that no other one beats in both, the fastest answer first.

    Invalid cells beat none. Of two that are equal in both, both are kept.
    """
    valid = [each for each in choices if not each.cell.invalid]
    best = [
        each
        for each in valid
        if not any(
            other.throughput >= each.throughput
            and other.latency <= each.latency
            and (other.throughput, other.latency) != (each.throughput, each.latency)
            for other in valid
        )
    ]
    return sorted(best, key=lambda each: (each.latency, each.throughput))


def pareto_plots(cells: Sequence[PlottedCell], *, max_panels: int | None = None) -> Iterator[Plot]:
    """Yield latency against throughput, a panel for each pair of lengths, by kind of latency.

    Loads are compared that have the same lengths: others do not do the same work.

    :param max_panels: panels that a figure has at most; None for all.
    """
    for latency in LATENCIES:
        panels: dict[str, list[Choice]] = {}
        units = set()
        for cell in cells:
            throughput, value = cell.value(THROUGHPUT), cell.value(latency)
            if throughput is None or value is None or cell.devices is None:
                continue
            number, unit = cell.devices
            units.add(unit)
            choice = Choice(cell, throughput / number, value)
            panels.setdefault(_lengths(cell), []).append(choice)
        panels = {name: found for name, found in panels.items() if len(found) > 1}
        if panels and len(units) == 1:
            yield _plot(latency, units.pop(), panels, max_panels)


def _lengths(cell: PlottedCell) -> str:
    if cell.lengths is None:
        return cell.workload_id
    return "input {:d}, output {:d} tokens".format(*cell.lengths)


def _plot(latency: str, unit: str, panels: dict[str, list[Choice]], max_panels: int | None) -> Plot:
    kept = dict(list(panels.items())[:max_panels])
    short = (METRICS[latency].quantity or latency).upper()
    more = left_out(len(panels) - len(kept), "panel")
    choices = [choice for found in kept.values() for choice in found]
    best = {id(each) for found in kept.values() for each in frontier(found)}
    return Plot(
        name=f"{name_of(latency)}-by-throughput",
        title=f"Mean {short} against throughput per {unit}",
        caption=(
            f"Lower right is better. The grey line joins what no other {_what(choices)} beats in "
            f"both.{more}"
        ),
        panels=tuple(
            Panel(title=title, draw=_Choices(latency, unit, found).draw, size=(310, 270))
            for title, found in kept.items()
        ),
        rows=[_row(each, latency, unit, id(each) in best) for each in choices],
        topologies=tuple(topology_styles([each.cell.topology for each in choices])),
        columns=4,
    )


def _what(choices: Sequence[Choice]) -> str:
    loads = {(each.cell.topology, each.cell.lengths) for each in choices}
    return "topology" if len(loads) == len(choices) else "topology and load"


def _row(choice: Choice, latency: str, unit: str, best: bool) -> dict[str, object]:
    cell = choice.cell
    lengths = cell.lengths or (None, None)
    return {
        "topology": cell.topology,
        "workload": cell.workload_id,
        "input_len": lengths[0],
        "output_len": lengths[1],
        "devices": cell.devices[0] if cell.devices else None,
        "device": unit,
        "output_tok_s_per_device": choice.throughput,
        latency: choice.latency,
        "pareto": best,
        "invalid": cell.invalid,
    }


@dataclass(frozen=True, slots=True)
class _Choices:
    """A panel of one pair of lengths."""

    latency: str
    unit: str
    choices: Sequence[Choice]

    def draw(self, axes: Axes) -> None:
        axes.grid(axis="x", visible=True)
        scale(axes.xaxis, [each.throughput for each in self.choices])
        scale(axes.yaxis, [each.latency for each in self.choices])
        axes.set_xlabel(f"output tok/s per {self.unit}")
        axes.set_ylabel(metric_label(self.latency))
        best = frontier(self.choices)
        ends = [each.throughput for each in best], [each.latency for each in best]
        axes.plot(*ends, color=GREY, linewidth=1, zorder=1)
        for name, style in topology_styles([each.cell.topology for each in self.choices]).items():
            own = [each for each in self.choices if each.cell.topology == name]
            valid = sorted((c for c in own if not c.cell.invalid), key=lambda c: c.throughput)
            axes.plot(
                [each.throughput for each in valid],
                [each.latency for each in valid],
                color=style.color,
                linestyle="none",
                marker=style.mark,
                markersize=7,
                markeredgecolor=PAPER,
                zorder=3,
            )
            invalid = [(c.throughput, c.latency) for c in own if c.cell.invalid]
            if invalid:
                mark_invalid(axes, invalid, style)
