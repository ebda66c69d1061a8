"""The time at which a session must end, and the cells that it leaves out because of it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime


@dataclass(slots=True, kw_only=True)
class Deadline:
    """Time that a session has left to measure.

    It is counted by a monotonic clock, so that changes of the system clock have no effect.
    """

    until: datetime | None = None
    """When the session must have ended; None without a deadline."""
    ends_s: float = math.inf
    """The same as a time of :attr:`clock`, seconds."""
    longest_s: float = 0.0
    """Longest time of a cell so far, with starts of its servers; seconds."""
    left_out: list[str] = field(default_factory=list)
    """Names of cells and tests for which no time was left."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic clock, seconds."""

    @classmethod
    def at(cls, until: datetime | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline of a session that begins now."""
        if until is None:
            return cls()
        left_s = (until - datetime.now(UTC)).total_seconds()
        return cls(until=until, ends_s=clock() + left_s, clock=clock)

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Measure the time that a cell takes, even if it fails."""
        began = self.clock()
        try:
            yield
        finally:
            self.longest_s = max(self.longest_s, self.clock() - began)

    def has_time_for(self, runs: int = 1) -> bool:
        """Return whether time is left for *runs*, each as long as the longest cell so far."""
        return self.clock() + runs * self.longest_s < self.ends_s

    def __str__(self) -> str:
        """Return the deadline as local time ``HH:MM``; empty without one."""
        return "" if self.until is None else f"{self.until.astimezone():%H:%M}"
