"""Add nights to the history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def push(history: Path, runs: Path, system: str) -> Iterator[str]:
    """Add the sessions of a system that a history lacks; yield messages.

    Earlier nights that could not be added are added too.

    :raises ConfigError: if the history cannot be read.
    :raises StoreError: if the disk does not take a session.
    """
    from pytest_pdserve.history.compaction import compact
    from pytest_pdserve.history.importing import import_folders
    from pytest_pdserve.history.importing import run_folders
    from pytest_pdserve.history.store import Store

    if not runs.is_dir():
        yield f"history: {runs} does not exist, so nothing was added"
        return
    folders, unreadable = run_folders([runs])
    store = Store.create(history)
    added = 0
    for imported in import_folders(store, folders, system):
        added += imported.path is not None
        yield from (f"history: {why}" for why in imported.unreadable)
    compact(store)
    yield from (f"history: {why}" for why in dict.fromkeys([*unreadable, *store.unreadable]))
    yield f"history: {added} session{'' if added == 1 else 's'} added to {history}"
