"""Watches engines while a load runs: how far it is, and whether one has work and makes no token."""

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
from prometheus_client.parser import text_string_to_metric_families

from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.values.counters import BY_NAME

LOOK_S = 1.0
"""Between two looks."""
_LIMITS = AnswerLimits(time_s=2.0, size_mib=16)
"""Of one answer; an engine that does not answer is looked at again."""
_SILENT_S = 10.0
"""An instance that has not answered for longer is said to be silent."""
_TOKENS = (*BY_NAME["prompt_tokens"].samples, *BY_NAME["generation_tokens"].samples)
_RUNNING, _WAITING = _REQUESTS = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_FINISHED = BY_NAME["requests"].samples
_MADE = BY_NAME["generation_tokens"].samples
_WANTED = (*_TOKENS, *_REQUESTS, *_FINISHED)


@dataclass(frozen=True, slots=True)
class EngineWork:
    """What one engine shows at one time."""

    tokens: float
    """Tokens read and made so far."""
    requests: float
    """Requests that run or wait."""
    waiting: float = 0.0
    """Of these, requests that wait."""
    finished: float = 0.0
    """Requests that it has finished so far."""
    made: float = 0.0
    """Tokens made so far."""


def read_work(text: str) -> dict[str, EngineWork]:
    """Read an instance's Prometheus text: its work by engine.

    An instance that lacks a counter, or shows something else than such text, has none.
    """
    wanted = [line for line in text.splitlines() if line.startswith(_WANTED)]
    sums: dict[tuple[str, tuple[str, ...]], float] = {}
    try:
        for family in text_string_to_metric_families("\n".join([*wanted, ""])):
            for sample in family.samples:
                engine = sample.labels.get("engine", "")
                for group in (_TOKENS, _REQUESTS, (_WAITING,), _FINISHED, _MADE):
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
            sums.get((engine, _MADE), 0.0),
        )
        for engine in dict.fromkeys(engine for engine, _ in sums)
        if (engine, _TOKENS) in sums and (engine, _REQUESTS) in sums
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What an instance was doing when it was last looked at."""

    instance: str
    running: float
    """Requests that ran."""
    waiting: float
    """Requests that waited."""
    still_s: float
    """Seconds for which an engine of it with requests has made no token; 0 if all make some."""
    silent_s: float
    """Seconds since it last answered."""

    def words(self, now: datetime) -> str:
        """Say it, at the time *now*."""
        said = f"{self.instance} has {self.running:g} running and {self.waiting:g} waiting requests"
        if not self.running and not self.waiting:
            said = f"{self.instance} has no request"
        elif self.still_s:
            said = f"{said} and has made no token for {self.still_s:.0f} s"
            said = f"{said} (since {now - timedelta(seconds=self.still_s):%H:%M:%S})"
        if self.silent_s > _SILENT_S:
            return f"{said}, and has not answered /metrics for {self.silent_s:.0f} s"
        return said


@dataclass(slots=True)
class Stalls:
    """What looks at instances have shown: the longest stall of each, and what it was doing."""

    longest_s: dict[str, float] = field(default_factory=dict)
    """Seconds by instance; one that never showed its work is missing."""
    _since: dict[tuple[str, str], tuple[float, EngineWork]] = field(default_factory=dict)
    """Last work of each engine, and since when it makes no token."""
    _seen: dict[str, float] = field(default_factory=dict)
    """Time of the last look that showed work, by instance."""

    def see(self, instance: str, at: float, work: Mapping[str, EngineWork]) -> None:
        """Take in what *instance* showed at the monotonic time *at*.

        A stall lasts from the first look that shows a number of tokens to the last that shows the
        same, if requests were there in all of them: a lower bound.
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
        """Return the requests that *instance* had finished when it was last looked at.

        :returns: None if it never showed its work.
        """
        works = self._works(instance)
        return sum(work.finished for _, work in works) if works else None

    def made(self, instance: str) -> float | None:
        """Return the tokens that *instance* had made when it was last looked at, likewise."""
        works = self._works(instance)
        return sum(work.made for _, work in works) if works else None

    def standings(self, now: float) -> list[Standing]:
        """Return what each instance was doing at the last look, at the monotonic time *now*."""
        return [self._standing(instance, seen, now) for instance, seen in list(self._seen.items())]

    def _standing(self, instance: str, seen: float, now: float) -> Standing:
        works = self._works(instance)
        return Standing(
            instance=instance,
            running=sum(work.requests - work.waiting for _, work in works),
            waiting=sum(work.waiting for _, work in works),
            still_s=max(
                (now - since for since, work in works if work.requests and since < seen),
                default=0.0,
            ),
            silent_s=now - seen,
        )

    def _works(self, instance: str) -> list[tuple[float, EngineWork]]:
        """Last works of an instance's engines; another thread may add to them meanwhile."""
        return [known for (name, _), known in list(self._since.items()) if name == instance]


@contextmanager
def watching_stalls(
    servers: Sequence[Server],
    ask: Callable[[str], str],
    *,
    every_s: float = LOOK_S,
) -> Iterator[Stalls]:
    """Look at the engines of *servers* until the block is left, in a thread.

    :param ask: returns the text of a URL's counters; may raise :class:`.AnswerError`.
    """
    stalls, over = Stalls(), threading.Event()

    def look() -> None:
        while not over.wait(every_s):
            for server in servers:
                if over.is_set():
                    return
                try:
                    text = ask(str(server.url))
                except (AnswerError, RuntimeError):
                    continue
                stalls.see(server.name, time.monotonic(), read_work(text))

    thread = threading.Thread(target=look, name="pdserve stalls", daemon=True)
    thread.start()
    try:
        yield stalls
    finally:
        over.set()
        thread.join()


def asking(client: httpx.Client) -> Callable[[str], str]:
    """Return what asks an instance for its counters, with little patience."""

    def ask(url: str) -> str:
        return read_answer(client, "GET", f"{url}/metrics", limits=_LIMITS).checked().text

    return ask
