"""Remove arrays and logs of old sessions from a runs folder; records always stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.history import session_folders
from pytest_pdserve.values.errors import StoreError

YOUNGEST = timedelta(days=1)
"""Age below which nothing is removed: the session may still run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """A run folder, and what can be removed from it."""

    path: Path
    """The folder."""
    began: datetime
    """When its session began; if unknown, when the folder was last changed."""
    arrays: tuple[Path, ...]
    """Files with one row per request."""
    logs: tuple[Path, ...]
    """Folders of server logs."""
    arrays_bytes: int
    """Size of :attr:`arrays`."""
    logs_bytes: int
    """Size of :attr:`logs`."""
    kept_bytes: int
    """Size of everything else: records, phases, report."""
    remove: bool = False
    """True if its arrays and logs are to be removed."""
    why: str = ""
    """Why they are removed, or kept."""

    @property
    def removable(self) -> int:
        """Bytes of arrays and logs."""
        return self.arrays_bytes + self.logs_bytes

    @property
    def size(self) -> int:
        """Bytes of the whole folder."""
        return self.removable + self.kept_bytes


def run_folder(path: Path, began: datetime | None) -> RunFolder:
    """Return the contents of a run folder, by size.

    :param began: when its session began; None if unknown.
    """
    logs = tuple(sorted(p for p in path.glob("*/logs*") if p.is_dir() and not p.is_symlink()))
    arrays = tuple(sorted(p for p in path.glob("*/*.parquet") if p.is_file()))
    arrays_bytes = sum(each.lstat().st_size for each in arrays)
    logs_bytes = sum(map(_size, logs))
    return RunFolder(
        path=path,
        began=began or datetime.fromtimestamp(path.stat().st_mtime, UTC),
        arrays=arrays,
        logs=logs,
        arrays_bytes=arrays_bytes,
        logs_bytes=logs_bytes,
        kept_bytes=_size(path) - arrays_bytes - logs_bytes,
    )


def _size(folder: Path) -> int:
    found = 0
    for top, _, names in os.walk(folder):
        found += sum(os.lstat(os.path.join(top, name)).st_size for name in names)
    return found


def named_by_baselines(folders: Sequence[Path]) -> dict[str, Path]:
    """Return each session in a baseline or proposal below *folders*, with the file.

    :raises ConfigError: if a file cannot be read: its sessions are then unknown.
    """
    named: dict[str, Path] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*.json")):
        data = load_json(path)
        sessions = data.get("sessions", []) if isinstance(data, dict) else []
        ids = [each.get("id") for each in sessions if isinstance(each, dict)]
        named |= {name: path for name in ids if isinstance(name, str)}
    return named


def plan_pruning(
    runs: Path,
    *,
    named: Mapping[str, Path],
    older_than: timedelta,
    max_bytes: int | None,
    now: datetime,
) -> list[RunFolder]:
    """Return every run folder, oldest first, and whether its arrays and logs are removed.

    :param named: sessions in baselines, of which nothing is removed.
    :param older_than: age from which arrays and logs are removed.
    :param max_bytes: size of *runs* above which more are removed, oldest first; None for any size.
    """
    found = [run_folder(path, ref.session.began) for path, ref in session_folders(runs)]
    folders = sorted(found, key=lambda each: (each.began, each.path.name))
    size = sum(each.size for each in folders)
    planned = []
    for each in folders:
        judged = _judged(each, named, older_than, now)
        over = max_bytes is not None and size > max_bytes and not judged.remove
        if over and not judged.why and now - each.began > YOUNGEST:
            judged = replace(judged, remove=True, why="runs folder larger than --max-size")
        size -= judged.removable if judged.remove else 0
        planned.append(judged)
    return planned


def _judged(
    folder: RunFolder, named: Mapping[str, Path], older_than: timedelta, now: datetime
) -> RunFolder:
    if not folder.removable:
        return replace(folder, why="nothing to remove")
    if folder.path.name in named:
        return replace(folder, why=f"named by {named[folder.path.name]}")
    if now - folder.began > max(older_than, YOUNGEST):
        return replace(
            folder, remove=True, why=f"older than {older_than / timedelta(days=1):g} days"
        )
    return folder


def remove(folder: RunFolder) -> None:
    """Remove the arrays and logs of a run folder.

    :raises StoreError: if something cannot be removed.
    """
    try:
        for path in folder.arrays:
            path.unlink(missing_ok=True)
        for path in folder.logs:
            shutil.rmtree(path)
    except OSError as error:
        raise StoreError(f"{error.filename} cannot be removed: {error.strerror}") from error


def old_partials(paths: Iterator[Path], now: datetime) -> list[Path]:
    """Return the files among *paths* that are too old for a write in progress."""
    return [
        path
        for path in paths
        if now - datetime.fromtimestamp(path.lstat().st_mtime, UTC) > YOUNGEST
    ]
