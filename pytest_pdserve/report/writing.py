"""A session's report in each of its formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.kinds import REPORT
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.report import Report


def _json(report: Report) -> str:
    return json.dumps(REPORT.dump(report, "report"), indent=1, ensure_ascii=False) + "\n"


def _markdown(report: Report) -> str:
    from pytest_pdserve.report.markdown import markdown

    return markdown(report)


def _prometheus(report: Report) -> str:
    from pytest_pdserve.report.prometheus import prometheus_text

    return prometheus_text(report)


_RENDERERS: dict[str, Callable[[Report], str]] = {
    "md": _markdown,
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


def report_text(report: Report, form: str) -> str:
    """Return a report in a format, one of :data:`FORMATS`.

    :raises ConfigError: if no file can hold it.
    """
    return _RENDERERS[form](report)


def write_report(report: Report, path: Path, form: str) -> None:
    """Write a report to *path*, whole or not at all.

    :raises ConfigError: if no file can hold it, or have such a name.
    :raises StoreError: if it cannot be written.
    """
    content = report_text(report, form).encode()
    if "\0" in str(path):
        raise ConfigError(f"report {str(path)!r:.200}: expected a name without a null character")
    write_bytes(path, content, otherwise="name another file")
