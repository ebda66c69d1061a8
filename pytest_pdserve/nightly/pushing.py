"""Nights join the history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def push(history: Path, runs: Path, system: str) -> Iterator[str]:
    """Add the sessions of a system that a history lacks, and yield what there is to say.

    A night that could not be added before is added now.

    :raises ConfigError: if the history cannot be read.
    :raises StoreError: if the disk does not take a session.
    """
    from pytest_pdserve.history.compaction import compact
    from pytest_pdserve.history.importing import import_folders
    from pytest_pdserve.history.importing import run_folders
    from pytest_pdserve.history.store import Store

    if not runs.is_dir():
        yield f"history: {runs} is not there, so nothing was added"
        return
    folders, torn = run_folders([runs])
    store = Store.create(history)
    added = 0
    for imported in import_folders(store, folders, system):
        added += imported.path is not None
        yield from (f"history: {why}" for why in imported.unreadable)
    compact(store)
    yield from (f"history: {why}" for why in dict.fromkeys([*torn, *store.torn]))
    yield f"history: {added} session{'' if added == 1 else 's'} added to {history}"
