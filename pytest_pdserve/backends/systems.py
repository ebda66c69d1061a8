"""System files: how they are read, and which part of the product reads which table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.registry import backends
from pytest_pdserve.backends.registry import find_backend
from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.kinds import SYSTEM
from pytest_pdserve.results.kinds import parse_table
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.system import Judgement
from pytest_pdserve.values.system import System


def load_system(name: str, folders: Sequence[Path]) -> System:
    """Read the system called *name*.

    :raises ConfigError: if no folder knows it, or its file is malformed.
    """
    for folder in folders:
        path = folder / name / "system.toml"
        if os.path.lexists(path):
            return _read(path, name)
    known = sorted(
        {file.parent.name for folder in folders for file in folder.glob("*/system.toml")}
    )
    raise ConfigError(
        f"system {name!r} is unknown; known are {', '.join(known) or 'none'} "
        f"({', '.join(f'{folder}/<system>/system.toml' for folder in folders)})"
    )


def _read(path: Path, name: str) -> System:
    data = load_toml(path)
    backend = _backend(data, path)
    own: dict[str, Any] = {}
    _check_tables(data, backend, path)
    if backend is not None:
        _check_unread(data, backend, path)
        for table, kind in backend.tables.items():
            own[table] = _table(data.pop(table, {}), kind, path, table)
    simulated = backend is not None and backend.simulated
    system = SYSTEM.parse(data, path, name=name, source=str(path), simulated=simulated, tables=own)
    _check_floors(system.judgement, path)
    try:
        system.check()
        if backend is not None:
            backend.check_file(system)
            if system.figures is not None:
                raise ConfigError(
                    "/figures: is read where [cluster] has no 'kind': a system is measured, or "
                    "its figures are judged; remove one of the two"
                )
        if system.cluster.kind is None and system.figures is None:
            raise ConfigError(
                f"/cluster: needs 'kind', one of {', '.join(backends())}, or the file needs "
                "'figures'"
            )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return system


def _backend(data: Mapping[str, Any], path: Path) -> Backend | None:
    """The backend that a file names; None where it names none, or no text at all."""
    cluster = data.get("cluster")
    kind = cluster.get("kind") if isinstance(cluster, dict) else None
    if not isinstance(kind, str):
        return None
    try:
        return find_backend(kind)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_unread(data: Mapping[str, Any], backend: Backend, path: Path) -> None:
    """Refuse what the chosen backend does not read."""
    for key in backend.unread:
        table, _, name = key.partition(".")
        there = data.get(table)
        if there is not None and (not name or (isinstance(there, dict) and name in there)):
            raise ConfigError(
                f"{path}: /{key.replace('.', '/')}: is not read where [cluster] kind is "
                f"{backend.name!r}; remove it"
            )


def _check_tables(data: Mapping[str, Any], backend: Backend | None, path: Path) -> None:
    """Refuse tables that only other backends read."""
    own = backend.tables if backend else {}
    chosen = f"not {backend.name!r}" if backend else "and none is given"
    for other in backends():
        for table in find_backend(other).tables:
            if table in data and table not in own:
                raise ConfigError(
                    f"{path}: /{table}: is read where [cluster] kind is {other!r}, {chosen}; "
                    "remove it"
                )


def _table(data: Any, kind: type, path: Path, name: str) -> Any:
    complete = getattr(kind, "complete", None)
    if complete is not None and isinstance(data, dict):
        data = complete(data)
    return parse_table(kind, data, path, name)


def _check_floors(judgement: Judgement, path: Path) -> None:
    for table in ("floors", "sees"):
        for name in getattr(judgement, table):
            if name not in METRICS.times:
                raise ConfigError(
                    f"{path}: /judgement/{table}/{name}: is not a judged metric; these are "
                    f"{', '.join(METRICS.times)}"
                )
