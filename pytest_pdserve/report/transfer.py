"""The output of ``pdserve transfer``: figures by shape, a heat map of pairs, slow pairs."""

from __future__ import annotations

import io
import statistics
import textwrap
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.transfer import TransferVerdict
from pytest_pdserve.judge.transfer import node_lines
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.plan.transfer import repeat_command
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import BenchRates
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferFigure
from pytest_pdserve.values.transfer import TransferShape
from pytest_pdserve.values.transfer import relative_spread

WIDTH = 80
_COLUMN = 7
"""Characters of a column of the heat map: ``300.12`` and a space."""
_COLUMNS = ("shape", "pieces", "GB/s", "ms", "posting\nms", "first\nms", "verdict")
_BENCH = "nixlbench\nGB/s"
_COLOURS = ((0.9, "on green"), (0.75, "on yellow"), (0.0, "on red"))
"""Least share of the best pair, and the background of a cell."""


def shape_lines(verdicts: Sequence[TransferVerdict], bench: BenchRates) -> list[str]:
    """Return a table of the shapes of each backend: medians over pairs, and the worst verdict.

    :param bench: rates of nixlbench; without any there is no column.
    """
    lines: list[str] = []
    for backend in dict.fromkeys(each.measured.backend for each in verdicts):
        own = [each for each in verdicts if each.measured.backend == backend]
        groups = [*_groups(own)]
        pairs = len(groups[0])
        lines += [f"{own[0].measured.transport}: medians of {pairs} pairs, and spreads of repeats"]
        rows = [_shape_row(group, bench) for group in groups]
        columns = (*_COLUMNS[:-1], *([_BENCH] if bench else []), _COLUMNS[-1])
        lines += text_table(columns, rows, "llrrrrrl" if bench else "llrrrrl")
        limits = [
            f"{each[0].figure.shape.id} {each[0].reference.limit:+.0%}"
            for each in groups
            if each[0].reference is not None
        ]
        if limits:
            lines += textwrap.wrap(f"limits of time: {', '.join(limits)}", WIDTH)
    return lines


def _bench_text(rates: Sequence[float | None] | None) -> str:
    """Return the median rate of nixlbench, ``failed``, or nothing if it was not run."""
    if rates is None:
        return ""
    measured = [rate for rate in rates if rate is not None]
    return f"{_median(measured):.2f}" if len(measured) == len(rates) else "failed"


def _shape_row(group: Sequence[TransferVerdict], bench: BenchRates) -> tuple[str, ...]:
    figures = [each.figure for each in group]
    shape = figures[0].shape
    rates = [_bench_text(bench.get((group[0].measured.backend, shape.id)))] if bench else []
    return (
        shape.id,
        f"{shape.descriptors:,} x {_size(shape.descriptor_bytes)}",
        f"{_median(figure.gb_s for figure in figures):.2f}",
        f"{_median(figure.median_ms for figure in figures):.2f} "
        f"±{_median(figure.spread for figure in figures):.0%}",
        f"{_median(figure.median_posting_ms for figure in figures):.2f} "
        f"±{_median(relative_spread(figure.posting_ms) for figure in figures):.0%}",
        f"{_median(figure.first_ms for figure in figures):.1f}",
        *rates,
        _worst(group),
    )


def _groups(verdicts: Sequence[TransferVerdict]) -> Iterator[list[TransferVerdict]]:
    keys = dict.fromkeys((v.measured.backend, v.figure.shape) for v in verdicts)
    for key in keys:
        yield [v for v in verdicts if (v.measured.backend, v.figure.shape) == key]


def _worst(group: Sequence[TransferVerdict]) -> str:
    failed = sum(each.status is Status.FAIL for each in group)
    if failed:
        return f"FAIL {failed} of {len(group)}"
    return str(Status.NEW if any(e.status is Status.NEW for e in group) else Status.PASS)


def heat_map(measured: Sequence[PairFigures], shape: TransferShape, *, colour: bool) -> list[str]:
    """Return GB/s of every pair with one shape: a row for each reader, a column for each source.

    Nodes have numbers where the table is read, and each number's name below it; more columns than
    80 characters hold are put in a further table.

    :param colour: whether cells have a background by their share of the best.
    """
    gb_s = {
        (each.pair.reader, each.pair.source): figure.gb_s
        for each in measured
        for figure in each.figures
        if figure.shape == shape
    }
    nodes = list(dict.fromkeys(name for pair in gb_s for name in sorted(pair)))
    nodes.sort()
    best, each = max(gb_s.values()), (WIDTH - _COLUMN) // _COLUMN
    backend = measured[0].backend
    lines = [f"GB/s of {shape.id} by {backend}: reader (row) from source (column)"]
    for first in range(0, len(nodes), each):
        lines += _map_part(gb_s, nodes, nodes[first : first + each], best=best, colour=colour)
    return [*lines, *_legend(nodes)]


def _map_part(
    gb_s: dict[tuple[str, str], float],
    nodes: Sequence[str],
    sources: Sequence[str],
    *,
    best: float,
    colour: bool,
) -> list[str]:
    from rich.console import Console
    from rich.text import Text

    numbers = {node: str(number) for number, node in enumerate(nodes)}
    text = Text(" " * _COLUMN + "".join(f"{numbers[node]:>{_COLUMN}}" for node in sources))
    for reader in nodes:
        text.append(f"\n{numbers[reader]:>{_COLUMN}}")
        for source in sources:
            value = gb_s.get((reader, source))
            label = "·" if value is None else f"{value:.2f}"[: _COLUMN - 1]
            text.append(" ")
            text.append(f"{label:>{_COLUMN - 1}}", style=_style(value, best) if colour else "")
    console = Console(
        file=io.StringIO(),
        width=WIDTH,
        color_system="standard" if colour else None,
        force_terminal=colour,
    )
    with console.capture() as capture:
        console.print(text)
    return [line.rstrip() for line in capture.get().splitlines()]


def _style(value: float | None, best: float) -> str:
    if value is None:
        return ""
    return next(style for share, style in _COLOURS if value >= share * best)


def _legend(nodes: Sequence[str]) -> list[str]:
    """Return which number is which node, as many to a line as fit."""
    lines = [""]
    for number, node in enumerate(nodes):
        label = f"{number} {node}"
        if len(lines[-1]) + len(label) + 3 > WIDTH:
            lines.append("")
        lines[-1] += f"   {label}"
    return lines


def slow_lines(verdicts: Sequence[TransferVerdict], system: System) -> list[str]:
    """Return a sentence for each FAIL with the command that repeats it, then nodes that are slow.

    A node is one that all slow pairs of a backend and shape point at.
    """
    lines = []
    for verdict in verdicts:
        if verdict.status is Status.FAIL:
            measured = verdict.measured
            lines += [
                f"FAIL {verdict.text}",
                f"  repeat  {repeat_command(system, measured.pair, measured.backend)}",
            ]
    nodes: dict[str, None] = {}
    for group in _groups(verdicts):
        slow = {each.measured.pair: each.status is Status.FAIL for each in group}
        if any(slow.values()):
            nodes |= dict.fromkeys(node_lines(slow))
    return [*lines, *nodes]


def transfer_lines(
    verdicts: Sequence[TransferVerdict],
    system: System,
    *,
    colour: bool,
    bench: BenchRates | None = None,
) -> list[str]:
    """Return the lines of a run: tables by shape, maps of pairs, what is slow.

    :param bench: rates of nixlbench; None or empty if it was not run.
    """
    lines = [*shape_lines(verdicts, bench or {})]
    for backend in dict.fromkeys(each.measured.backend for each in verdicts):
        measured = {
            each.measured.pair: each.measured
            for each in verdicts
            if each.measured.backend == backend
        }
        figures = next(iter(measured.values())).figures
        lines += ["", *heat_map([*measured.values()], _shown(figures), colour=colour)]
    slow = slow_lines(verdicts, system)
    return [*lines, *(["", *slow] if slow else [])]


def _shown(figures: Sequence[TransferFigure]) -> TransferShape:
    """Return the shape of the map: the largest of the model's, one transfer at a time."""
    alone = [figure.shape for figure in figures if figure.shape.in_flight == 1]
    shapes = alone or [figure.shape for figure in figures]
    return max(shapes, key=lambda shape: (shape.descriptors, shape.transfer_bytes))


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _size(count: int) -> str:
    """Return bytes in the largest unit that leaves no fraction, e.g. ``18 KiB``."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count % size == 0:
            return f"{count // size} {unit}"
    return f"{count:,} B"
