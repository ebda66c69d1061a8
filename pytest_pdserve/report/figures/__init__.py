"""Figures of a session, drawn with Matplotlib as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.report.figures.figure import Figure

if TYPE_CHECKING:
    from pytest_pdserve.values.report import Report

__all__ = ["Figure", "figures_of"]


def figures_of(report: Report, *, folder: Path | None = None) -> list[Figure]:
    """Return the figures of a session's page; none without Matplotlib.

    :param folder: folder of its records, where that is not the one that the report names.
    """
    from pytest_pdserve.report.figures.style import is_installed

    if not is_installed():
        return []
    from pytest_pdserve.report.figures.drawing import page_figure
    from pytest_pdserve.report.figures.session import page_plots

    return [page_figure(plot) for plot in page_plots(report, folder)]
