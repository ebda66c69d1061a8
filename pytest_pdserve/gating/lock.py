"""Lock that permits one gate at a time on a system: two would disturb each other."""

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
def locked_system(system: System, state: Path) -> Iterator[None]:
    """Lock the nodes of *system* against other gates of this machine while the context is open.

    Clusters with jobs need no lock, and neither do simulated nodes, which exist only in this
    process. The lock ends with this process, however it ends.

    :param state: the user's state folder.
    :raises AllocationError: if another gate has locked it.
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
