"""Read the expected changes of a system."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.folders import own_folder
from pytest_pdserve.results.kinds import EXPECTED
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.expected import ExpectedFile
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.system import System


def expected_path(system: System, rootdir: Path) -> Path:
    """Return the file of a system's expected changes: the project's, or next to its file."""
    own = own_folder(system, rootdir) / "expected.toml"
    return own if is_there(own) else Path(system.source).parent / "expected.toml"


def load_expected(path: Path) -> tuple[ExpectedChange, ...]:
    """Read the entries of a file; empty if there is no file.

    :raises ConfigError: if it is malformed, or an entry names a metric that is not judged.
    """
    if not is_there(path):
        return ()
    file: ExpectedFile = EXPECTED.parse(_with_days(load_toml(path)), path)
    for place, entry in enumerate(file.expected):
        _check_entry(entry, f"{path}: /expected/{place}")
    return file.expected


def _with_days(data: dict[str, Any]) -> dict[str, Any]:
    """Return *data* with TOML dates as text."""
    entries = data.get("expected")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("until"), datetime.date):
            entry["until"] = entry["until"].isoformat()
    return data


def _check_entry(entry: ExpectedChange, where: str) -> None:
    try:
        datetime.date.fromisoformat(entry.until)
    except ValueError as error:
        raise ConfigError(
            f"{where}/until: {entry.until!r} is not a date like 2026-12-31"
        ) from error
    for key in ("topologies", "metrics", "max_worse"):
        if entry.claims is not None and getattr(entry, key) is not None:
            raise ConfigError(
                f"{where}/{key}: not allowed in an entry with claims; remove it, or make two "
                "entries"
            )
    for name in entry.metrics or ():
        if name not in METRICS.times:
            raise ConfigError(
                f"{where}/metrics: {name!r} is not judged; expected one of "
                f"{', '.join(METRICS.times)}"
            )
