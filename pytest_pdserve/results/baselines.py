"""Files of baselines: their paths, reading, writing, and adding nights."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import platformdirs
from filelock import FileLock
from filelock import Timeout

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.folders import own_folder
from pytest_pdserve.results.kinds import BASELINE
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.sources import unlike
from pytest_pdserve.values.system import System

SUITE = "sweep"
"""Suite whose baseline holds cells."""
_LOCK_S = 30.0
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_LINE = re.compile(r'"\\u0000(\d+)"')


def state_folder() -> Path:
    """Return the user's state folder, which holds the references of single hosts."""
    return Path(platformdirs.user_state_dir("pytest-pdserve", appauthor=False))


def baseline_path(
    system: System, rootdir: Path, suite: str = SUITE, *, gpu: str | None = None
) -> Path:
    """Return the file of a system's baseline: next to its system file, or in the project.

    A system file of the installed package has its baseline in ``baselines/`` of *rootdir*.

    :param gpu: GPU model whose baseline it is; None for that of the whole system.
    """
    return own_folder(system, rootdir) / _file(suite, gpu)


def present_path(
    system: System, rootdir: Path, suite: str = SUITE, *, gpu: str | None = None
) -> Path:
    """Return the baseline file to read: the project's, or the one next to the system file.

    :param gpu: as in :func:`baseline_path`.
    """
    own = baseline_path(system, rootdir, suite, gpu=gpu)
    return own if is_there(own) else Path(system.source).parent / _file(suite, gpu)


def _file(suite: str, gpu: str | None) -> str:
    folder = f"{_NOT_PLAIN.sub('-', gpu.lower()).strip('-')}/" if gpu else ""
    return f"{folder}{suite}.json"


def gpu_models(system: System, rootdir: Path) -> tuple[str, ...]:
    """Return the folders of GPU models that have a baseline or a proposal."""
    folders = (own_folder(system, rootdir), Path(system.source).parent)
    found = {path.parent.name for folder in folders for path in folder.glob(f"*/{SUITE}*.json")}
    return tuple(sorted(found))


def gpu_of_references(system: System, host: Mapping[str, str]) -> str | None:
    """Return the GPU model whose hosts share their references; None if these do not.

    :param host: facts of a host, as :attr:`.record.Record.host` has them.
    """
    return host.get("gpu") if system.judgement.gpu_references else None


def host_baseline_path(system: System, fingerprint: str, state: Path, suite: str = SUITE) -> Path:
    """Return the file of the baseline of one host, by its fingerprint."""
    return state / "baselines" / system.name / fingerprint / f"{suite}.json"


def load_baseline(
    path: Path,
    *,
    system: System,
    suite: str = SUITE,
    fingerprint: str | None = None,
    host: Mapping[str, str] = MappingProxyType({}),
) -> Baseline | None:
    """Read a baseline; None if there is no such file.

    :param system: expected system.
    :param suite: expected suite.
    :param fingerprint: expected fingerprint of the hardware; None if not known.
    :param host: facts that the fingerprint is a digest of, to report what differs.
    :raises ConfigError: if it is malformed, names an unknown metric, or is of other hardware,
        another system or suite.
    """
    if not is_there(path):
        return None
    data = load_json(path)
    _check_place(data, path, system, suite)
    baseline = BASELINE.parse(data, path, given=system, source=str(path))
    _check_sessions(baseline, path)
    for topology, cells in baseline.cells.items():
        for workload, cell in cells.items():
            _check_cell(cell, f"{path}: /cells/{topology}/{workload}", baseline)
    if fingerprint and baseline.fingerprint not in (None, fingerprint):
        raise ConfigError(
            f"{path} was measured on another host or with another system file "
            f"({unlike(baseline, fingerprint, host)}); move it away, and the next session records "
            "a new reference"
        )
    return baseline


def _check_place(data: Any, path: Path, system: System, suite: str) -> None:
    for key, wanted in (("system", system.name), ("suite", suite)):
        found = data.get(key) if isinstance(data, dict) else None
        if isinstance(found, str) and found and found != wanted:
            raise ConfigError(
                f"{path}: /{key}: {found!r}, expected {wanted!r}; move the file to where it belongs"
            )


def _check_sessions(baseline: Baseline, path: Path) -> None:
    ids = [source.id for source in baseline.sessions]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path}: /sessions: {twice!r} appears {ids.count(twice)} times")


def _check_cell(cell: CellBaseline, where: str, baseline: Baseline) -> None:
    session_ids, seen = {source.id for source in baseline.sessions}, set()
    for place, night in enumerate(cell.nights):
        at = f"{where}/nights/{place}"
        if night.session not in session_ids:
            raise ConfigError(f"{at}/session: {night.session!r} is not one of /sessions")
        if night.session in seen:
            raise ConfigError(f"{at}/session: {night.session!r} appears twice in this cell")
        seen.add(night.session)
        for name in night.values:
            _check_metric(name, f"{at}/values/{name}", counted=False)
    for name in cell.counts:
        _check_metric(name, f"{where}/counts/{name}", counted=True)


def _check_metric(name: str, where: str, *, counted: bool) -> None:
    metric = METRICS.get(name)
    if metric is None:
        raise ConfigError(f"{where}: unknown metric {name!r}; expected one of {', '.join(METRICS)}")
    if (metric.better == "equal") is not counted:
        kind, place = ("a count", "counts") if not counted else ("not a count", "values of a night")
        raise ConfigError(f"{where}: {name} is {kind}; it belongs in the cell's {place}")


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write *baseline* to *path*: one line for each night of a cell, so that diffs are readable.

    :raises StoreError: if it cannot be written.
    """
    cells = {
        topology: dict(sorted(there.items())) for topology, there in sorted(baseline.cells.items())
    }
    data = BASELINE.dump(replace(baseline, cells=cells), path)
    write_bytes(path, _text(data).encode())


def _text(data: dict[str, Any]) -> str:
    """Return *data* as JSON, with a line for each session and each night."""
    lines: list[str] = []

    def line(entry: Any) -> str:
        lines.append(json.dumps(entry, ensure_ascii=False, allow_nan=False))
        return f"\0{len(lines) - 1}"  # notes and names cannot hold control characters

    marked = dict(data)
    if "sessions" in data:
        marked["sessions"] = [line(each) for each in data["sessions"]]
    marked["cells"] = {
        topology: {
            workload: {**cell, "nights": [line(night) for night in cell["nights"]]}
            for workload, cell in cells.items()
        }
        for topology, cells in data.get("cells", {}).items()
    }
    text = json.dumps(marked, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return _LINE.sub(lambda match: lines[int(match[1])], text)


def join_night(
    path: Path,
    empty: Baseline,
    joining: Mapping[Key, tuple[Night, Mapping[str, float]]],
    *,
    source: Source,
    system: System,
) -> Baseline:
    """Add a night of several cells to the baseline at *path*; return the new baseline.

    The file is locked and read again, so that two sessions at the same time lose nothing.

    :param empty: the baseline to begin with if there is no file.
    :param joining: the night of each cell, and the cell's counts.
    :raises ConfigError: if the file is malformed or of other hardware.
    :raises StoreError: if it cannot be written or locked.
    """
    with locked(path):
        stored = load_baseline(
            path, system=system, suite=empty.suite, fingerprint=empty.fingerprint, host=empty.host
        )
        baseline = before = stored or empty
        for key, (night, counts) in joining.items():
            baseline = baseline.with_night(key, night, counts, source)
        if baseline is not before:
            write_baseline(path, baseline)
    return baseline


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the file of a baseline while the context is open.

    :raises StoreError: if it cannot be locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_S):
            yield
    except Timeout as error:
        raise StoreError(
            f"{path} has been locked by another session for {_LOCK_S:g} s; "
            "wait for that session, or end it"
        ) from error
    except OSError as error:
        raise StoreError(
            f"{path} cannot be locked: {error.strerror}; make {path.parent} writable"
        ) from error
