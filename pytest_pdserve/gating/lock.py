"""One gate at a time on the nodes of a system: two would measure each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from filelock import Timeout

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.system import System


@contextlib.contextmanager
def holding_system(system: System, state: Path) -> Iterator[None]:
    """Keep other gates of this machine away from the nodes of *system* until the block is left.

    A cluster with jobs keeps them apart itself, and nodes that are simulated cannot be shared. The
    lock ends with this process, however that ends.

    :param state: the user's own folder.
    :raises AllocationError: if another gate holds it.
    """
    if system.simulated or backend_of(system).takes_jobs:
        yield
        return
    path = state / "gates" / f"{system.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise AllocationError(
            f"another gate on system {system.name!r} is running on this machine ({path} is "
            "locked); wait until it has ended"
        ) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
