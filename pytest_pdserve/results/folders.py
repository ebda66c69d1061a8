"""Folders of baselines and system files."""

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
    """Return the folders with one folder per system: the project's, then the shipped ones."""
    own = rootdir / "baselines"
    return tuple(dict.fromkeys([*([own] if is_there(own) else []), *SHIPPED]))


def own_folder(system: System, rootdir: Path) -> Path:
    """Return the folder for what is measured on *system*: its file's, or one in the project.

    Nothing is written next to a shipped file: the next version replaces it, and other projects use
    it.
    """
    folder = Path(system.source).resolve().parent
    return rootdir / "baselines" / system.name if folder.parent in SHIPPED else folder
