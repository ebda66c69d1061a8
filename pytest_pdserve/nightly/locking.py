"""Lock that permits one night of a system at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.errors import StoreError


class BusyError(PdserveError):
    """Raised when another night of the system is running."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[int]:
    """Lock a system's nights while the context is open, and yield the descriptor.

    This is not :mod:`filelock`, which keeps its descriptor private: the session must hold the lock
    too (:func:`~pytest_pdserve.nightly.running.run_session`).

    :param wait: whether to wait until the other night has ended.
    :raises BusyError: if another night is running, and *wait* is False.
    :raises StoreError: if the file cannot be created or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made: {error.strerror}; free space, or make {path.parent} writable"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
        raise BusyError(
            f"another pdserve nightly of this system is running (it has locked {path}); --wait "
            "waits for it"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
