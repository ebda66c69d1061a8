"""Checks whether sessions can write to their folders, without writing anything."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.prerequisites import unneeded


def writable_row(what: str, folder: Path, *, needed: bool, advice: str) -> Prerequisite:
    """Return the row of a folder that must be writable, or that can be created.

    :param advice: what to do if it is not writable.
    """
    trouble = write_trouble(folder)
    found = trouble or "can be written" if os.path.exists(folder) else trouble or "can be made"
    if not needed:
        return unneeded(what, found)
    return required(what, found=found, needed="writable", there=trouble is None, advice=advice)


def write_trouble(folder: Path) -> str | None:
    """Return why *folder* is not writable; None if it is."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        return f"{nearest} is not a folder"
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        return f"{nearest} is not writable"
    return None
