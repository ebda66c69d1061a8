"""Times of a session by phase, and the nodes that it held."""

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
"""Phases of a session: waiting for nodes; starting servers until they are ready; warming them up;
the client before and after the load; the load; stopping servers and releasing nodes; other tests
that send requests; runs without a record; everything else."""
Spent = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimes:
    """Times of one start of a topology's servers."""

    topology: Word
    """Topology id."""
    ready_s: Spent
    """Seconds until all servers were ready."""
    warmup_s: Spent
    """Seconds of warming up and proving the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Nodes and GPUs that a session holds, and for how long."""

    nodes: Annotated[int, Meta(ge=0)] = 0
    """Number of machines; 0 for an attached endpoint."""
    gpus: Annotated[int, Meta(ge=0)] = 0
    """Number of their GPUs."""
    seconds: Spent = 0.0
    """Duration."""
    price_per_gpu_hour: Annotated[float, Meta(ge=0)] | None = None
    """Price in the system file; None without one."""
    currency: str = ""
    """Currency of the price."""

    @property
    def text(self) -> str:
        """GPU-hours and price; node-hours for several nodes without GPUs; empty for one."""
        hours = self.seconds / 3600
        if not self.gpus:
            return f"{_hours(self.nodes * hours)} node-hours" if self.nodes > 1 else ""
        text = f"{_hours(self.gpus * hours)} GPU-hours"
        if self.price_per_gpu_hour is None:
            return text
        return f"{text}, {self.gpus * hours * self.price_per_gpu_hour:,.2f} {self.currency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTimes:
    """Times of one session; ``phases.json`` in its run folder."""

    seconds: Mapping[Phase, Spent]
    """Seconds by phase; their sum is the time since the session began."""
    starts: tuple[StartTimes, ...] = ()
    """All successful starts of servers, in order."""
    runs: Annotated[int, Meta(ge=0)] = 0
    """Number of runs with a record."""
    rerun_s: Spent = 0.0
    """Seconds of rerunning suspicious cells, with starts of servers; part of the phases."""
    held: Held = field(default_factory=Held)
    """Nodes and GPUs that it held."""
    forecast_s: Spent | None = None
    """Forecast at the begin, without queue and reruns; None without one."""
    ended: bool = False
    """True if the session reached its end; the times of a killed session end with its last run or
    start."""

    @property
    def total_s(self) -> float:
        """Seconds in total."""
        return sum(self.seconds.values())

    @property
    def forecastable_s(self) -> float:
        """Seconds that a forecast covers: all except queue and reruns."""
        return self.total_s - self.seconds.get("queue", 0.0) - self.rerun_s


def duration_text(seconds: float) -> str:
    """Return *seconds* with a suitable unit: ``43 s``, ``18.2 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _hours(count: float) -> str:
    return f"{count:,.1f}" if count >= 10 else f"{count:.2g}"
