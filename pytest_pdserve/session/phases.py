"""Counts the time of a session by phase, while it goes on."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.restartable import Servers
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.phases import Held
from pytest_pdserve.values.phases import Phase
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.phases import StartTimes
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System

T = TypeVar("T")


class SessionPhases:
    """Where the time of a session goes; each moment counts for the innermost phase.

    What is known so far is written after each start and each run, so that it outlives a session
    that is killed.
    """

    def __init__(
        self, store: RunStore | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count.

        :param store: where the times are written; None for a session that has none of its own.
        """
        self._store, self._clock = store, clock
        self._seconds: dict[Phase, float] = {}
        self._phases: list[Phase] = ["overhead"]
        self._last = clock()
        self._starts: list[StartTimes] = []
        self._runs = 0
        self._rerun_s, self._rerunning = 0.0, False
        self._held, self._held_since = Held(), 0.0
        self._holds = False
        self.forecast_s: float | None = None
        """What was forecast when the session began."""

    @contextlib.contextmanager
    def of(self, phase: Phase) -> Iterator[None]:
        """Count the block for *phase*, but for what is counted for another inside of it."""
        self._count()
        self._phases.append(phase)
        try:
            yield
        finally:
            self._count()
            self._phases.pop()

    @contextlib.contextmanager
    def entered(self, phase: Phase, manager: AbstractContextManager[T]) -> Iterator[T]:
        """Enter and leave *manager*: the first counts for *phase*, the other for ``stop``."""
        with self.of(phase):
            value = manager.__enter__()
        try:
            yield value
        except BaseException:
            with self.of("stop"):
                swallowed = manager.__exit__(*sys.exc_info())
            if not swallowed:
                raise
        else:
            with self.of("stop"):
                manager.__exit__(None, None, None)

    @contextlib.contextmanager
    def holding(
        self, system: System, acquiring: AbstractContextManager[Allocation]
    ) -> Iterator[Allocation]:
        """Acquire nodes and give them back, and count for how long they are held."""
        try:
            with self.entered("queue", acquiring) as allocation:
                prepared_s = self._prepared_s(allocation)
                self._held, self._held_since = _held(system, allocation), self._clock() - prepared_s
                self._holds = True
                yield allocation
        finally:
            self._held, self._holds = self._held_now(), False

    def _prepared_s(self, allocation: Allocation) -> float:
        """Seconds of acquiring nodes that went into preparing them, where the queue is known."""
        took_s = self._now().get("queue", 0.0)
        queued_s = allocation.describe().get("queued_s", took_s)
        return self._move("queue", "overhead", took_s - min(queued_s, took_s))

    @contextlib.contextmanager
    def serving(
        self, topology: str, deploying: AbstractContextManager[Servers]
    ) -> Iterator[Servers]:
        """Start the servers of *topology* and end them."""
        before = self._now().get("start", 0.0)
        with self.entered("start", deploying) as servers:
            timings_s = getattr(servers, "timings_s", {})  # of what starts nothing there are none
            took_s = self._now().get("start", 0.0) - before
            warmup_s = self._move("start", "warm-up", min(timings_s.get("warmup", 0.0), took_s))
            if "ready" in timings_s or getattr(servers, "shared_start", None) is None:
                self._starts.append(
                    StartTimes(
                        topology=topology,
                        ready_s=round(took_s - warmup_s, 3),
                        warmup_s=round(warmup_s, 3),
                    )
                )
            self._write()
            yield servers

    def measured(self, measure: Callable[[], tuple[Record, Path]]) -> tuple[Record, Path]:
        """Measure once, and divide the time as the record says."""
        before = self._now().get("failed runs", 0.0)
        with self.of("failed runs"):
            record, path = measure()
        took_s, timings_s = self._now()["failed runs"] - before, record.timings_s
        load_s = timings_s.get("bench", 0.0)
        parts: dict[Phase, float] = {
            "load": load_s,
            "client": timings_s.get("client", load_s) - load_s,
            "warm-up": timings_s.get("warm", 0.0),
            "overhead": took_s,  # what is left
        }
        for phase, seconds in parts.items():
            took_s -= self._move("failed runs", phase, min(seconds, took_s))
        self._runs += 1
        self._write()
        return record, path

    @contextlib.contextmanager
    def rerunning(self) -> Iterator[None]:
        """Count the block as reruns too, whatever its phases."""
        outer, self._rerunning = self._rerunning, True
        began = self._clock()
        try:
            yield
        finally:
            self._rerunning = outer
            if not outer:
                self._rerun_s += self._clock() - began

    @property
    def times(self) -> SessionTimes:
        """What is known so far."""
        return SessionTimes(
            seconds={p: round(seconds, 3) for p, seconds in self._now().items() if seconds > 0},
            starts=tuple(self._starts),
            runs=self._runs,
            rerun_s=round(self._rerun_s, 3),
            held=self._held_now(),
            forecast_s=self.forecast_s,
        )

    def end(self) -> None:
        """Write the times of a session that has come to its end."""
        self._write(ended=True)

    def _count(self) -> None:
        now, phase = self._clock(), self._phases[-1]
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def _now(self) -> dict[Phase, float]:
        self._count()
        return dict(self._seconds)

    def _move(self, source: Phase, target: Phase, seconds: float) -> float:
        """Count *seconds* for another phase than they were; return them."""
        moved = max(seconds, 0.0)
        self._seconds[source] = max(self._seconds[source] - moved, 0.0)
        self._seconds[target] = self._seconds.get(target, 0.0) + moved
        return moved

    def _held_now(self) -> Held:
        if not self._holds:
            return self._held
        return replace(self._held, seconds=round(self._clock() - self._held_since, 3))

    def _write(self, *, ended: bool = False) -> None:
        """Write what is known; a disk that takes nothing is said of the records, not of this."""
        if self._store is not None:
            with contextlib.suppress(StoreError):
                self._store.write_times(replace(self.times, ended=ended))


def _held(system: System, allocation: Allocation) -> Held:
    """Return what a session with *allocation* holds, for no time yet."""
    if allocation.endpoint is not None:
        return Held()
    known = "gpu" in allocation.describe_nodes()
    return held_by(system, nodes=len(allocation.hosts), has_gpus=known or None)


def held_by(system: System, *, nodes: int, has_gpus: bool | None = None) -> Held:
    """Return what *nodes* of a system are, for no time yet.

    :param has_gpus: whether they have GPUs; None asks the system's backend.
    """
    cluster = system.cluster
    priced = cluster.price_per_gpu_hour is not None
    if has_gpus is None:
        has_gpus = priced or bool(backend_of(system).has_gpus(system))
    return Held(
        nodes=min(nodes, 1) if cluster.shared_host else nodes,
        gpus=nodes * cluster.gpus_per_node if has_gpus else 0,
        price_per_gpu_hour=cluster.price_per_gpu_hour,
        currency=cluster.currency if priced else "",
    )
