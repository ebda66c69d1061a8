"""Writes the session's heartbeat, which nodes read, into the shared folder."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

_PATIENCE_S = 5.0
"""Timeout of a write: the session must end its job even if the file server is gone."""


class Heartbeat:
    """Writes a growing number into a file regularly, until :meth:`end`.

    It overwrites the same bytes, so that a full disk does not stop it.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self._path = path
        self._every_s = every_s
        self._over = threading.Event()
        self._count = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write(self._text())
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write that the session is over, for all nodes."""
        self._over.set()
        farewell = threading.Thread(target=self._write, args=[f"{'over':16}"], daemon=True)
        self._thread.join(_PATIENCE_S)
        farewell.start()
        farewell.join(_PATIENCE_S)

    def _beat(self) -> None:
        while not self._over.wait(self._every_s):
            self._count += 1
            self._write(self._text())

    def _text(self) -> str:
        return f"beat {self._count:011d}"

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(descriptor, text.encode(), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
