"""A session's report in each of its formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.kinds import REPORT
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.report import Report

if TYPE_CHECKING:
    from pytest_pdserve.report.page.trends import NightTrends


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """Folders that a page links to, and its trends; no other format needs them."""

    folder: Path | None = None
    """Folder of the session's records, where that is not the one that the report names."""
    page: Path | None = None
    """Folder of the page; None is the working folder."""
    trends: NightTrends | None = None
    """What a history holds of the session's cells; None without a history."""


def _json(report: Report, _: PageContext) -> str:
    return json.dumps(REPORT.dump(report, "report"), indent=1, ensure_ascii=False) + "\n"


def _markdown(report: Report, _: PageContext) -> str:
    from pytest_pdserve.report.markdown import markdown

    return markdown(report)


def _prometheus(report: Report, _: PageContext) -> str:
    from pytest_pdserve.report.prometheus import prometheus_text

    return prometheus_text(report)


def _html(report: Report, context: PageContext) -> str:
    from pytest_pdserve.report.page import page_html

    return page_html(report, folder=context.folder, page=context.page, trends=context.trends)


_RENDERERS: dict[str, Callable[[Report, PageContext], str]] = {
    "md": _markdown,
    "html": _html,
    "json": _json,
    "prom": _prometheus,
}
FORMATS = tuple(_RENDERERS)
"""Every format; a file's suffix names its own."""


def format_of(path: Path) -> str:
    """Return the format that the suffix of *path* names.

    :raises ConfigError: if it names none.
    """
    form = path.suffix.removeprefix(".")
    if form not in _RENDERERS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigError(f"report {str(path)!r:.200}: expected a file name that ends in {known}")
    return form


def report_text(
    report: Report, form: str, *, folder: Path | None = None, trends: NightTrends | None = None
) -> str:
    """Return a report in a format, one of :data:`FORMATS`.

    :param folder: folder of its records, where that is not the one that the report names.
    :param trends: what a history holds of its cells, which a page alone shows.
    :raises ConfigError: if no file can hold it.
    """
    return _RENDERERS[form](report, PageContext(folder=folder, trends=trends))


def write_report(
    report: Report,
    path: Path,
    form: str,
    *,
    folder: Path | None = None,
    trends: NightTrends | None = None,
) -> None:
    """Write a report to *path*, whole or not at all.

    :param folder: as of :func:`report_text`, as is *trends*.
    :raises ConfigError: if no file can hold it, or have such a name.
    :raises StoreError: if it cannot be written.
    """
    context = PageContext(folder=folder, page=path.parent, trends=trends)
    content = _RENDERERS[form](report, context).encode()
    if "\0" in str(path):
        raise ConfigError(f"report {str(path)!r:.200}: expected a name without a null character")
    write_bytes(path, content, otherwise="name another file")
