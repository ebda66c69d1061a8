"""Sample engines while a load runs: their progress, and whether one with requests is stalled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta

import httpx

from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.serving.metrics_text import read_samples
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.values.counters import BY_NAME

SAMPLE_S = 1.0
"""Seconds between two samples."""
_LIMITS = AnswerLimits(time_s=2.0, size_mib=16)
"""Limits of one sample; an engine that does not answer is sampled again."""
_SILENT_S = 10.0
"""Seconds without an answer after which a message mentions it."""
_TOKENS = (*BY_NAME["prompt_tokens"].samples, *BY_NAME["generation_tokens"].samples)
_RUNNING, _WAITING = _REQUESTS = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_FINISHED = BY_NAME["requests"].samples
_GENERATED = BY_NAME["generation_tokens"].samples
_WANTED = frozenset((*_TOKENS, *_REQUESTS, *_FINISHED))


@dataclass(frozen=True, slots=True)
class EngineWork:
    """One sample of an engine's counters."""

    tokens: float
    """Prompt and output tokens processed so far."""
    requests: float
    """Running and waiting requests."""
    waiting: float = 0.0
    """Waiting requests."""
    finished: float = 0.0
    """Requests finished so far."""
    generated: float = 0.0
    """Output tokens so far."""


def read_work(text: str) -> dict[str, EngineWork]:
    """Return the work of each engine in an instance's Prometheus text.

    Empty if the text lacks a counter or is not Prometheus text.
    """
    sums: dict[tuple[str, tuple[str, ...]], float] = {}
    try:
        for sample in read_samples(text, _WANTED):
            engine = sample.labels.get("engine", "")
            for group in (_TOKENS, _REQUESTS, (_WAITING,), _FINISHED, _GENERATED):
                if sample.name in group:
                    sums[engine, group] = sums.get((engine, group), 0.0) + sample.value
    except ValueError:
        return {}
    return {
        engine: EngineWork(
            sums[engine, _TOKENS],
            sums[engine, _REQUESTS],
            sums.get((engine, (_WAITING,)), 0.0),
            sums.get((engine, _FINISHED), 0.0),
            sums.get((engine, _GENERATED), 0.0),
        )
        for engine in dict.fromkeys(engine for engine, _ in sums)
        if (engine, _TOKENS) in sums and (engine, _REQUESTS) in sums
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceActivity:
    """Activity of an instance at its last sample."""

    instance: str
    running: float
    """Running requests."""
    waiting: float
    """Waiting requests."""
    stalled_s: float
    """Seconds for which an engine with requests has processed no token; 0 if none is stalled."""
    silent_s: float
    """Seconds since it last answered."""

    def text(self, now: datetime) -> str:
        """Return a sentence about it, for messages at the time *now*."""
        text = f"{self.instance} has {self.running:g} running and {self.waiting:g} waiting requests"
        if not self.running and not self.waiting:
            text = f"{self.instance} has no request"
        elif self.stalled_s:
            text = f"{text} and has made no token for {self.stalled_s:.0f} s"
            text = f"{text} (since {now - timedelta(seconds=self.stalled_s):%H:%M:%S})"
        if self.silent_s > _SILENT_S:
            return f"{text}, and has not answered /metrics for {self.silent_s:.0f} s"
        return text


@dataclass(slots=True)
class Stalls:
    """Samples of instances: the longest stall of each, and its last activity."""

    longest_s: dict[str, float] = field(default_factory=dict)
    """Longest stall in seconds by instance, without instances that were never sampled."""
    _since: dict[tuple[str, str], tuple[float, EngineWork]] = field(default_factory=dict)
    """Last sample of each engine, and the time since which it has processed no token."""
    _seen: dict[str, float] = field(default_factory=dict)
    """Time of the last sample by instance."""

    def add_sample(self, instance: str, at: float, work: Mapping[str, EngineWork]) -> None:
        """Add a sample of *instance* at the monotonic time *at*.

        A stall lasts from the first to the last sample with the same number of tokens, if all of
        them have requests: a lower bound.
        """
        if work:
            self._seen[instance] = at
        for engine, now in work.items():
            key = (instance, engine)
            since, before = self._since.get(key, (at, now))
            if now.tokens != before.tokens or not (before.requests and now.requests):
                since = at
            self._since[key] = (since, now)
            self.longest_s[instance] = max(self.longest_s.get(instance, 0.0), at - since)

    def finished(self, instance: str) -> float | None:
        """Return the requests that *instance* had finished at its last sample.

        :returns: None if it was never sampled.
        """
        works = self._works(instance)
        return sum(work.finished for _, work in works) if works else None

    def generated(self, instance: str) -> float | None:
        """Return the output tokens of *instance* at its last sample; None as :meth:`finished`."""
        works = self._works(instance)
        return sum(work.generated for _, work in works) if works else None

    def activities(self, now: float) -> list[InstanceActivity]:
        """Return the last activity of each instance, seen from the monotonic time *now*."""
        return [self._activity(instance, seen, now) for instance, seen in list(self._seen.items())]

    def _activity(self, instance: str, seen: float, now: float) -> InstanceActivity:
        works = self._works(instance)
        return InstanceActivity(
            instance=instance,
            running=sum(work.requests - work.waiting for _, work in works),
            waiting=sum(work.waiting for _, work in works),
            stalled_s=max(
                (now - since for since, work in works if work.requests and since < seen),
                default=0.0,
            ),
            silent_s=now - seen,
        )

    def _works(self, instance: str) -> list[tuple[float, EngineWork]]:
        """Return the last samples of an instance's engines; another thread may add to them."""
        return [work for (name, _), work in list(self._since.items()) if name == instance]


@contextmanager
def watching_stalls(
    servers: Sequence[Server],
    read_metrics: Callable[[str], str],
    *,
    every_s: float = SAMPLE_S,
) -> Iterator[Stalls]:
    """Sample the engines of *servers* in a thread until the block is left.

    :param read_metrics: returns the ``/metrics`` of a URL; may raise :class:`.AnswerError`.
    """
    stalls, over = Stalls(), threading.Event()

    def sample() -> None:
        while not over.wait(every_s):
            for server in servers:
                if over.is_set():
                    return
                try:
                    text = read_metrics(str(server.url))
                except (AnswerError, RuntimeError):
                    continue
                stalls.add_sample(server.name, time.monotonic(), read_work(text))

    thread = threading.Thread(target=sample, name="pdserve stalls", daemon=True)
    thread.start()
    try:
        yield stalls
    finally:
        over.set()
        thread.join()


def metrics_reader(client: httpx.Client) -> Callable[[str], str]:
    """Return a function that reads ``/metrics`` of an instance, with a short time-out."""

    def read_metrics(url: str) -> str:
        return read_answer(client, "GET", f"{url}/metrics", limits=_LIMITS).checked().text

    return read_metrics
