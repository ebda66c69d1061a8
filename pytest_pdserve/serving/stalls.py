"""Watches engines while a load runs: the longest time in which one had work and made no token."""

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

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.values.counters import BY_NAME

LOOK_S = 1.0
"""Between two looks."""
_ANSWER_S = 2.0
"""Longest wait for one answer; an engine that does not answer is looked at again."""
_TOKENS = (*BY_NAME["prompt_tokens"].samples, *BY_NAME["generation_tokens"].samples)
_REQUESTS = ("vllm:num_requests_running", "vllm:num_requests_waiting")


@dataclass(frozen=True, slots=True)
class EngineWork:
    """What one engine shows at one time."""

    tokens: float
    """Tokens read and made so far."""
    requests: float
    """Requests that run or wait."""


def read_work(text: str) -> dict[str, EngineWork]:
    """Read an instance's Prometheus text: its work by engine.

    An instance that lacks a counter, or shows something else than such text, has none.
    """
    wanted = [line for line in text.splitlines() if line.startswith((*_TOKENS, *_REQUESTS))]
    sums: dict[tuple[str, bool], float] = {}
    try:
        for family in text_string_to_metric_families("\n".join([*wanted, ""])):
            for sample in family.samples:
                if sample.name in (*_TOKENS, *_REQUESTS):
                    key = sample.labels.get("engine", ""), sample.name in _TOKENS
                    sums[key] = sums.get(key, 0.0) + sample.value
    except ValueError:
        return {}
    return {
        engine: EngineWork(sums[engine, True], sums[engine, False])
        for engine in dict.fromkeys(engine for engine, _ in sums)
        if (engine, True) in sums and (engine, False) in sums
    }


@dataclass(slots=True)
class Stalls:
    """The longest stall of each instance, from looks at it."""

    longest_s: dict[str, float] = field(default_factory=dict)
    """Seconds by instance; one that never showed its work is missing."""
    _since: dict[tuple[str, str], tuple[float, EngineWork]] = field(default_factory=dict)

    def see(self, instance: str, at: float, work: Mapping[str, EngineWork]) -> None:
        """Take in what *instance* showed at the monotonic time *at*.

        A stall lasts from the first look that shows a number of tokens to the last that shows the
        same, if requests were there in all of them: a lower bound.
        """
        for engine, now in work.items():
            key = (instance, engine)
            since, before = self._since.get(key, (at, now))
            if now.tokens != before.tokens or not (before.requests and now.requests):
                since = at
            self._since[key] = (since, now)
            self.longest_s[instance] = max(self.longest_s.get(instance, 0.0), at - since)


@contextmanager
def watching_stalls(
    servers: Sequence[Server],
    ask: Callable[[str], str],
    *,
    every_s: float = LOOK_S,
) -> Iterator[Stalls]:
    """Look at the engines of *servers* until the block is left, in a thread.

    :param ask: returns the text of a URL's counters; may raise ``httpx.HTTPError``.
    """
    stalls, over = Stalls(), threading.Event()

    def look() -> None:
        while not over.wait(every_s):
            for server in servers:
                if over.is_set():
                    return
                try:
                    text = ask(str(server.url))
                except (httpx.HTTPError, httpx.InvalidURL, RuntimeError):
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
        return client.get(f"{url}/metrics", timeout=_ANSWER_S).raise_for_status().text

    return ask
