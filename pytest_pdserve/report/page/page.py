"""The page of a session: its values and its templates."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.report.figures.style import MISSING
from pytest_pdserve.report.figures.style import is_installed
from pytest_pdserve.report.findings import merged
from pytest_pdserve.report.page import groups
from pytest_pdserve.report.page import text
from pytest_pdserve.report.page.records import LogCauses
from pytest_pdserve.report.page.records import logs_in
from pytest_pdserve.report.page.records import runs_of
from pytest_pdserve.report.page.trends import MAX_TRENDS
from pytest_pdserve.report.page.trends import NightTrends
from pytest_pdserve.report.page.trends import trend_figures
from pytest_pdserve.report.page.trends import trend_metrics
from pytest_pdserve.report.phases import phase_line
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.report import OUTCOMES
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.rules import RULE

if TYPE_CHECKING:
    from jinja2 import Environment

    from pytest_pdserve.report.figures import Figure

_TEMPLATES = Path(__file__).parent / "templates"
_MOST = 400
"""Rows of a list or a table that is not that of all cells."""
_OPEN = 100
"""Cells of which the table is unfolded."""
_FEW = 60
"""Records of which the list is unfolded."""
_MANY = 2000
"""Cells beyond which rows have no links to records, and figures are left to ``pdserve plot``."""
_FIGURES = 6
"""Figures that are not folded: the article's four, TPOT and E2EL."""
_TRENDS = 4
"""Trends that are not folded."""
_FIGURE_BYTES = 1_200_000
"""Size that all figures may have together."""
_NO_FIGURES = MISSING[0].upper() + MISSING[1:]
_OVERLAY = "pdserve-overlay"
"""Class of the article's curves in a figure."""
_LIMITS = {
    "MOST": _MOST,
    "OPEN": _OPEN,
    "FEW": _FEW,
    "FIGURES": _FIGURES,
    "TRENDS": _TRENDS,
    "MAX_TRENDS": MAX_TRENDS,
    "MANY": _MANY,
}
"""Limits that the templates use."""
_TONES = {
    **dict.fromkeys(("FAIL", "ERROR"), "bad"),
    **dict.fromkeys(("SUSPICIOUS", "INCONCLUSIVE", "EXPECTED", "REPORTED"), "warn"),
    "PASS": "good",
    "NEW": "new",
}
"""Colour of an outcome, as the style sheet names it; that of others is ``calm``."""


def page_html(
    report: Report,
    *,
    folder: Path | None = None,
    page: Path | None = None,
    trends: NightTrends | None = None,
) -> str:
    """Return the page of a session.

    :param folder: folder of its records, where that is not the one that the report names.
    :param page: folder that the page will lie in, which its links start from; None is the working
        folder.
    :param trends: what a history holds of its cells; None without a history.
    """
    if folder is None and report.folder:
        folder = Path(report.folder)
    where = (page or Path()).absolute()
    figures, figure_notes = _figures(report, folder)
    template = _environment().get_template("page.html")
    return template.render(
        report=report,
        title=groups.page_title(report),
        findings=merged(report.findings),
        runs=runs_of(report, folder),
        folder=folder,
        logs=logs_in(folder),
        causes=_causes(report, folder),
        link=functools.partial(_link, where),
        figures=figures,
        figure_notes=figure_notes,
        has_overlay=any(_OVERLAY in figure.svg for figure in figures),
        phases=phase_line(report.phases) if report.phases else "",
        shown=METRICS.shown,
        **_verdicts(report),
        **_trends(report, trends),
        **_files(),
    )


def _verdicts(report: Report) -> dict[str, Any]:
    """Return what the templates show of the verdicts."""
    cells = [each for each in report.verdicts if each.kind == "cell"]
    return {
        "groups": groups.groups_of(report),
        "gains": groups.gains_of(report),
        "cells": cells,
        "others": [each for each in report.verdicts if each.kind != "cell"],
        "has_void": any(metric.void for each in cells for metric in each.metrics),
    }


def _causes(report: Report, folder: Path | None) -> tuple[str, ...]:
    """Return the causes that logs name of errors that are in no record."""
    return LogCauses().of(logs_in(folder)) if report.errors else ()


def _figures(report: Report, folder: Path | None) -> tuple[list[Figure], list[str]]:
    """Return the figures that fit on a page, and a sentence on each reason why some are missing."""
    cells = sum(each.kind == "cell" for each in report.verdicts)
    if cells > _MANY:
        return [], [f"There are no figures of more than {_MANY:,} cells; pdserve plot draws them."]
    if not is_installed():
        return [], [_NO_FIGURES]
    from pytest_pdserve.report.figures import figures_of
    from pytest_pdserve.report.figures.session import MAX_CELLS

    kept: list[Figure] = []
    room = _FIGURE_BYTES
    try:
        figures = figures_of(report, folder=folder)
    except Exception as error:  # a page without figures is better than none
        return [], [f"No figures: internal error of pdserve: {error!r}; please report it"]
    for figure in figures:
        room -= len(figure.svg.encode())
        if room < 0:
            break
        kept.append(figure)
    notes = []
    if figures and cells > MAX_CELLS:
        notes.append(
            f"Figures show {MAX_CELLS} of {cells:,} cells, those with the worst verdicts; "
            "pdserve plot draws all."
        )
    if missing := len(figures) - len(kept):
        more = text.counted(missing, "figure")
        notes.append(f"{more} more would make this page too large; pdserve plot writes all.")
    return kept, notes


def _trends(report: Report, trends: NightTrends | None) -> dict[str, Any]:
    """Return what the templates show of a history."""
    figures = trend_figures(trends, report) if trends is not None else []
    return {
        "trends": trends,
        "trend_figures": figures,
        "trend_anchors": {
            (each.of.topology, each.of.workload): f"#figure-{each.figure.name}" for each in figures
        },
        "trends_wanted": len(trend_metrics(report)),
        "no_trends": "" if is_installed() else _NO_FIGURES,
    }


def _link(where: Path, target: Path) -> str:
    return text.link(target.absolute(), where)


@functools.cache
def _files() -> dict[str, str]:
    """Return style sheet and script, and the digest by which a browser may run no other script."""
    script = (_TEMPLATES / "page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (_TEMPLATES / "page.css").read_text("utf-8")
    return {"style": style, "script": script, "script_digest": f"sha256-{digest}"}


@functools.cache
def _environment() -> Environment:
    """Return the templates' environment: every value is escaped, a missing one is an error."""
    from jinja2 import Environment
    from jinja2 import FileSystemLoader
    from jinja2 import StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=text.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "value_text": text.value_text,
        "change_text": text.change_text,
        "command_line": text.command_line,
        "counted": text.counted,
        "first_line": text.first_line,
        "moment_text": text.moment_text,
        "visible": text.visible,
        "limits_text": text.limits_text,
        "since_of": groups.since_of,
        "shortened": text.shortened,
        "anchor_of": groups.anchor_of,
        "also_worse": groups.also_worse,
        "judged_metrics": groups.judged_metrics,
        "tone": _tone,
        "cell_values": _cell_values,
        "outcomes": OUTCOMES,
        "better_nights": RULE.better_nights,
        **_LIMITS,
    }
    return environment


def _tone(outcome: str | None) -> str:
    return _TONES.get(outcome or "", "calm")


def _cell_values(cell: VerdictReport, names: Sequence[Any]) -> list[Any]:
    """Return the metric of each column; None where the cell has none of it."""
    there = {metric.metric: metric for metric in cell.metrics}
    return [there.get(column.name) for column in names]
