"""A runs folder of a few nights, and the history that it is imported into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_pdserve.history.importing import ImportedSession
from pytest_pdserve.history.importing import import_folders
from pytest_pdserve.history.importing import run_folders
from pytest_pdserve.history.store import Store
from tests.support.stored_nights import Shelf

CELL_VALUES = 6
"""Values of one run: four times and two counts."""


def imported(shelf: Shelf, folder: Path | None = None) -> tuple[Store, Sequence[ImportedSession]]:
    """Import all nights of a shelf; returns the store, and what became of each."""
    store = Store.create(folder or shelf.folder / "history")
    folders, _ = run_folders([shelf.runs])
    return store, list(import_folders(store, folders))


def files_of(store: Store) -> list[str]:
    """Return every file of a store."""
    return sorted(str(p.relative_to(store.folder)) for p in store.folder.rglob("*") if p.is_file())
