"""Plots to SVG for a page, and to SVG and PNG for a paper."""

from __future__ import annotations

import io
import math
from typing import Any

from pytest_pdserve.report.figures.figure import Figure
from pytest_pdserve.report.figures.plot import Panel
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.style import INK
from pytest_pdserve.report.figures.style import PAPER
from pytest_pdserve.report.figures.style import PIXELS
from pytest_pdserve.report.figures.style import settings
from pytest_pdserve.report.figures.style import topology_styles
from pytest_pdserve.report.figures.svg import OVERLAY
from pytest_pdserve.report.figures.svg import describe
from pytest_pdserve.report.figures.svg import tidied
from pytest_pdserve.report.figures.svg import written

PNG_DPI = 200
"""Dots per inch of a PNG."""
_RIGHT, _TOP, _BOTTOM, _ROW = 24, 32, 50, 22
"""Pixels around a panel, and the height of a row of the legend."""
_NAME = 12
"""Pixels of the mark and of the room between two names of a legend; a letter has 7."""


def page_figure(plot: Plot) -> Figure:
    """Return *plot* as a page shows it: an ``<svg>`` for each panel."""
    with settings():
        parts = [_panel_svg(plot, place) for place in range(len(plot.panels))]
    return Figure(
        name=plot.name,
        title=plot.title,
        svg="".join(parts),
        data=list(plot.rows),
        caption=plot.caption,
    )


def paper_svg(plot: Plot, *, overlay: bool) -> str:
    """Return *plot* as one SVG document, black on white.

    :param overlay: whether the article's curves are shown.
    """
    root = tidied(_saved(plot, overlay, "svg").decode(), plot.name)
    describe(root, plot.name, plot.title, plot.caption)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{written(root)}\n'


def paper_png(plot: Plot, *, overlay: bool) -> bytes:
    """Return *plot* as a PNG, black on white."""
    return _saved(plot, overlay, "png")


def _saved(plot: Plot, overlay: bool, form: str) -> bytes:
    with settings():
        figure = _paper(plot)
        for axes in figure.axes:
            for artist in axes.get_children():
                if str(artist.get_gid()).startswith(OVERLAY):
                    artist.set_visible(overlay)
        return _bytes(figure, form)


def _bytes(figure: Any, form: str) -> bytes:
    """Return a figure as a file that is the same whenever it is written."""
    buffer = io.BytesIO()
    if form == "png":
        figure.savefig(buffer, format=form, dpi=PNG_DPI, metadata={"Software": None})
    else:
        figure.savefig(buffer, format=form, metadata={"Date": None})
    return buffer.getvalue()


def _panel_svg(plot: Plot, place: int) -> str:
    """Return one panel; the first has the legend, and the others the room for it."""
    panel = plot.panels[place]
    width, height = panel.size
    rows = _legend_rows(plot, width)
    whole = height + _ROW * len(rows)
    figure = _canvas(width, whole)
    figure.patch.set_visible(False)
    box = (panel.left, _BOTTOM, width - panel.left - _RIGHT, height - _TOP - _BOTTOM)
    _draw(_axes(figure, box), panel)
    if place == 0:
        _legend(figure, rows, whole)
    name = f"{plot.name}-{place + 1}"
    root = tidied(_bytes(figure, "svg").decode(), name)
    del root.attrib["width"], root.attrib["height"]
    shown = f"display: inline-block; width: min(100%, {width + 20}px); height: auto"
    root.set("style", f"{shown}; {root.get('style')}")
    describe(root, name, f"{plot.title}: {panel.title}", plot.caption)
    text = written(root)
    return text.replace(INK, "currentColor").replace(PAPER, "var(--pdserve-paper, Canvas)")


def _paper(plot: Plot) -> Any:
    """Return all panels in one Matplotlib figure, the legend above."""
    columns = min(plot.columns, len(plot.panels))
    lines = math.ceil(len(plot.panels) / columns)
    width = max(panel.size[0] for panel in plot.panels)
    height = max(panel.size[1] for panel in plot.panels)
    rows = _legend_rows(plot, columns * width)
    whole = lines * height + _ROW * len(rows)
    figure = _canvas(columns * width, whole)
    figure.patch.set_facecolor(PAPER)
    for place, panel in enumerate(plot.panels):
        line, column = divmod(place, columns)
        bottom = (lines - 1 - line) * height + _BOTTOM
        left = column * width + panel.left
        size = (width - panel.left - _RIGHT, height - _TOP - _BOTTOM)
        _draw(_axes(figure, (left, bottom, *size)), panel)
    _legend(figure, rows, whole)
    return figure


def _canvas(width: float, height: float) -> Any:
    from matplotlib.figure import Figure as MplFigure

    return MplFigure(figsize=(width / PIXELS, height / PIXELS), dpi=PIXELS)


def _axes(figure: Any, box: tuple[float, float, float, float]) -> Any:
    """Return axes at a place in pixels: left, bottom, width, height."""
    width, height = figure.get_size_inches() * PIXELS
    left, bottom, wide, high = box
    return figure.add_axes((left / width, bottom / height, wide / width, high / height))


def _draw(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title)
    panel.draw(axes)


def _legend_rows(plot: Plot, width: float) -> list[list[str]]:
    """Return the names of the legend, as many in a row as there is room for."""
    rows: list[list[str]] = []
    left = 0.0
    for name in plot.topologies:
        needed = 3 * _NAME + 8 * len(name) + 16
        if not rows or left < needed:
            rows.append([])
            left = width - 16
        rows[-1].append(name)
        left -= needed
    return rows


def _legend(figure: Any, rows: list[list[str]], height: float) -> None:
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

    names = [name for row in rows for name in row]
    shown = topology_styles(names)
    for number, row in enumerate(rows):
        handles = [
            Line2D([], [], color=shown[name].color, marker=shown[name].mark, markeredgecolor=PAPER)
            for name in row
        ]
        place = (8 / (figure.get_size_inches()[0] * PIXELS), 1 - (2 + _ROW * number) / height)
        figure.add_artist(
            Legend(
                figure,
                handles,
                row,
                loc="upper left",
                bbox_to_anchor=place,
                bbox_transform=figure.transFigure,
                ncols=len(row),
            )
        )
