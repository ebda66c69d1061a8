"""The moment at which a session must end, and what it has no time for."""

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
    """How long a session may still measure.

    The time that is left is counted by a clock that is never set, so that a clock that is put
    forward or back in between changes nothing.
    """

    until: datetime | None = None
    """When the session must have ended; None for no such time."""
    ends_s: float = math.inf
    """The same by :attr:`clock`, seconds."""
    longest_s: float = 0.0
    """The longest that a cell has taken so far, starts of its servers included; seconds."""
    left_out: list[str] = field(default_factory=list)
    """What there was no time for."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""

    @classmethod
    def at(cls, until: datetime | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline of a session that begins now."""
        if until is None:
            return cls()
        left_s = (until - datetime.now(UTC)).total_seconds()
        return cls(until=until, ends_s=clock() + left_s, clock=clock)

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Remember how long a cell takes, however it ends."""
        began = self.clock()
        try:
            yield
        finally:
            self.longest_s = max(self.longest_s, self.clock() - began)

    def leaves(self, runs: int = 1) -> bool:
        """Whether there is time for so many runs, each as long as the longest cell so far."""
        return self.clock() + runs * self.longest_s < self.ends_s

    def __str__(self) -> str:
        """Return the local time; empty of none."""
        return "" if self.until is None else f"{self.until.astimezone():%H:%M}"
