"""Where baselines and system files lie."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.system import System

_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = tuple(
    folder for folder in (_PACKAGE / "baselines", _PACKAGE.parent / "baselines") if folder.is_dir()
)[:1]
"""Baselines of the installed package, or of the checkout it is developed in."""


def baseline_folders(rootdir: Path) -> tuple[Path, ...]:
    """Folders that hold one folder per system: the project's own before the shipped ones."""
    own = rootdir / "baselines"
    return tuple(dict.fromkeys([*([own] if is_there(own) else []), *SHIPPED]))


def own_folder(system: System, rootdir: Path) -> Path:
    """Folder for what is measured on *system*: that of its file, or the project's own.

    Nothing is kept beside a shipped file: the next version replaces it, and other projects use it.
    """
    folder = Path(system.source).resolve().parent
    return rootdir / "baselines" / system.name if folder.parent in SHIPPED else folder
