"""Tells what goes on while nothing else is said, so that silence is never long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pytest_pdserve.backends.allocation import Progress

EVERY_S = 14.5
"""After so much silence a line is told, so that it is never longer than 15 s."""


class Heartbeat:
    """A progress function that by itself says what goes on, whenever it was told nothing for long.

    It does so from entering the block to leaving it, in a thread: what goes on need not know of it.
    """

    def __init__(self, progress: Progress, doing: str) -> None:
        self._progress = progress
        self._state: Callable[[], str] = lambda: doing
        self._began = self._told = time.monotonic()
        self._saying = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pdserve heartbeat", daemon=True)

    def __call__(self, text: str) -> None:
        """Say *text*; silence begins anew."""
        with self._saying:
            self._told = time.monotonic()
            self._progress(text)

    def now(self, doing: str | Callable[[], str]) -> None:
        """Set what goes on from now on; its seconds are counted from here.

        :param doing: its words, or what returns them when they are needed.
        """
        self._began = time.monotonic()
        self._state = doing if callable(doing) else lambda: doing

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(max(0.0, self._told + EVERY_S - time.monotonic())):
            if time.monotonic() - self._told >= EVERY_S:
                self(f"{self._state()}, {time.monotonic() - self._began:.0f} s")
