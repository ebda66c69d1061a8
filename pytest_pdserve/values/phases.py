"""Where the time of a session went, and what its nodes were held for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.text import Word

Phase = Literal[
    "queue",
    "start",
    "warm-up",
    "client",
    "load",
    "stop",
    "other tests",
    "failed runs",
    "overhead",
]
"""What a session spends time on: waiting for nodes; starting servers until they answer; warming
them up; the client before and after the load; the load; ending servers and giving nodes back; tests
that send requests of their own; runs that left no record; everything else."""
Spent = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimes:
    """One start of the servers of a topology."""

    topology: Word
    """Its id."""
    ready_s: Spent
    """Until all servers answered."""
    warmup_s: Spent
    """Warming them up, and proving their path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a session holds while it holds its nodes."""

    nodes: Annotated[int, Meta(ge=0)] = 0
    """Machines; 0 where it holds none of its own, as of servers that somebody else runs."""
    gpus: Annotated[int, Meta(ge=0)] = 0
    """GPUs of these; 0 where they have none."""
    seconds: Spent = 0.0
    """How long."""
    price_per_gpu_hour: Annotated[float, Meta(ge=0)] | None = None
    """As the system file says."""
    currency: str = ""
    """Of the price."""

    @property
    def words(self) -> str:
        """Say GPU-hours and money; of several nodes without GPUs node-hours, of one nothing."""
        hours = self.seconds / 3600
        if not self.gpus:
            return f"{_hours(self.nodes * hours)} node-hours" if self.nodes > 1 else ""
        said = f"{_hours(self.gpus * hours)} GPU-hours"
        if self.price_per_gpu_hour is None:
            return said
        return f"{said}, {self.gpus * hours * self.price_per_gpu_hour:,.2f} {self.currency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTimes:
    """Where the time of one session went; ``phases.json`` of its run folder."""

    seconds: Mapping[Phase, Spent]
    """By phase; together all the time since the session began."""
    starts: tuple[StartTimes, ...] = ()
    """Every start of servers, in order; without those that failed."""
    runs: Annotated[int, Meta(ge=0)] = 0
    """Runs that left a record."""
    rerun_s: Spent = 0.0
    """Of the time, what went into running suspicious cells again, starts of servers included."""
    held: Held = field(default_factory=Held)
    """Nodes."""
    forecast_s: Spent | None = None
    """What was forecast when it began, queue and reruns aside; None where nothing was."""
    ended: bool = False
    """Whether the session came to its end; the time of one that was killed ends with its last
    run or start."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return sum(self.seconds.values())

    @property
    def forecastable_s(self) -> float:
        """What a forecast is about: all but the queue and reruns."""
        return self.total_s - self.seconds.get("queue", 0.0) - self.rerun_s


def duration_words(seconds: float) -> str:
    """Return *seconds* as people say it: ``43 s``, ``18.2 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _hours(count: float) -> str:
    return f"{count:,.1f}" if count >= 10 else f"{count:.2g}"
