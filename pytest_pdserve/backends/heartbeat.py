"""Repeats the current activity while no other progress line is printed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pytest_pdserve.backends.allocation import Progress

EVERY_S = 14.5
"""Time without a line after which one is printed, so that users never wait more than 15 s."""


class Heartbeat:
    """A progress function that repeats the current activity when no line was printed for long.

    It works in a thread, from the start to the end of its ``with`` block.
    """

    def __init__(self, progress: Progress, doing: str) -> None:
        self._progress = progress
        self._state: Callable[[], str] = lambda: doing
        self._began = self._printed = time.monotonic()
        self._printing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pdserve heartbeat", daemon=True)

    def __call__(self, text: str) -> None:
        """Print *text* and restart the wait for the next repetition."""
        with self._printing:
            self._printed = time.monotonic()
            self._progress(text)

    def now(self, doing: str | Callable[[], str]) -> None:
        """Set the current activity; its seconds are counted from now.

        :param doing: a text, or a function that returns it.
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
        while not self._over.wait(max(0.0, self._printed + EVERY_S - time.monotonic())):
            if time.monotonic() - self._printed >= EVERY_S:
                self(f"{self._state()}, {time.monotonic() - self._began:.0f} s")
