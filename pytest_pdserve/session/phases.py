"""Measure the time of a session by phase."""

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
from pytest_pdserve.backends.nodes import spare_hosts
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
    """Times of a session by phase; nested phases count only for the innermost one.

    They are written after each start and each run, and so exist even if the session is killed.
    """

    def __init__(
        self, store: RunStore | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        :param store: store of the session, which gets the times; None does not write them.
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
        """Forecast made when the session began, seconds; None without one."""

    @contextlib.contextmanager
    def of(self, phase: Phase) -> Iterator[None]:
        """Count the time of the block for *phase*, without nested phases."""
        self._count()
        self._phases.append(phase)
        try:
            yield
        finally:
            self._count()
            self._phases.pop()

    @contextlib.contextmanager
    def entered(self, phase: Phase, manager: AbstractContextManager[T]) -> Iterator[T]:
        """Enter and exit *manager*; count entering for *phase*, exiting for ``stop``."""
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
        """Acquire and release nodes, and count the time for which they are held."""
        try:
            with self.entered("queue", acquiring) as allocation:
                prepared_s = self._prepared_s(allocation)
                self._held, self._held_since = _held(system, allocation), self._clock() - prepared_s
                self._holds = True
                yield allocation
        finally:
            self._held, self._holds = self._held_now(), False

    def _prepared_s(self, allocation: Allocation) -> float:
        """Move the time that nodes took to prepare from ``queue`` to ``overhead``; return it.

        It is the time of the acquisition without the time in Slurm's queue; 0 if that is not known.
        """
        took_s = self._now().get("queue", 0.0)
        queued_s = allocation.describe().get("queued_s", took_s)
        return self._move("queue", "overhead", took_s - min(queued_s, took_s))

    @contextlib.contextmanager
    def serving(
        self, topology: str, deploying: AbstractContextManager[Servers]
    ) -> Iterator[Servers]:
        """Start and stop the servers of *topology*, and count the time by phase."""
        before = self._now().get("start", 0.0)
        with self.entered("start", deploying) as servers:
            timings_s = getattr(servers, "timings_s", {})  # simulated servers have none
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
        """Call *measure*, and divide its time into phases by the record's timings."""
        before = self._now().get("failed runs", 0.0)
        with self.of("failed runs"):
            record, path = measure()
        took_s, timings_s = self._now()["failed runs"] - before, record.timings_s
        load_s = timings_s.get("bench", 0.0)
        parts: dict[Phase, float] = {
            "load": load_s,
            "client": timings_s.get("client", load_s) - load_s,
            "warm-up": timings_s.get("warm", 0.0),
            "overhead": took_s,  # the rest
        }
        for phase, seconds in parts.items():
            took_s -= self._move("failed runs", phase, min(seconds, took_s))
        self._runs += 1
        self._write()
        return record, path

    @contextlib.contextmanager
    def rerunning(self) -> Iterator[None]:
        """Count the time of the block as reruns, in addition to its phases."""
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
        """Times so far."""
        return SessionTimes(
            seconds={p: round(seconds, 3) for p, seconds in self._now().items() if seconds > 0},
            starts=tuple(self._starts),
            runs=self._runs,
            rerun_s=round(self._rerun_s, 3),
            held=self._held_now(),
            forecast_s=self.forecast_s,
        )

    def end(self) -> None:
        """Write the times at the end of the session."""
        self._write(ended=True)

    def _count(self) -> None:
        now, phase = self._clock(), self._phases[-1]
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def _now(self) -> dict[Phase, float]:
        self._count()
        return dict(self._seconds)

    def _move(self, source: Phase, target: Phase, seconds: float) -> float:
        """Move *seconds* from one phase to another; return them."""
        moved = max(seconds, 0.0)
        self._seconds[source] = max(self._seconds[source] - moved, 0.0)
        self._seconds[target] = self._seconds.get(target, 0.0) + moved
        return moved

    def _held_now(self) -> Held:
        if not self._holds:
            return self._held
        return replace(self._held, seconds=round(self._clock() - self._held_since, 3))

    def _write(self, *, ended: bool = False) -> None:
        """Write the times; errors are ignored here, since writing records reports them too."""
        if self._store is not None:
            with contextlib.suppress(StoreError):
                self._store.write_times(replace(self.times, ended=ended))


def _held(system: System, allocation: Allocation) -> Held:
    """Return the nodes and GPUs of *allocation*, held for 0 s."""
    if allocation.endpoint is not None:
        return Held()
    has_gpus = "gpu" in allocation.describe_nodes()
    nodes = len(allocation.hosts) + len(spare_hosts(allocation))
    return held_by(system, nodes=nodes, has_gpus=has_gpus or None)


def held_by(system: System, *, nodes: int, has_gpus: bool | None = None) -> Held:
    """Return *nodes* of a system with their GPUs and price, held for 0 s.

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
