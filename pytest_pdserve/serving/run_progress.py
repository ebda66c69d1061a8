"""Follow the progress of a run by the counters of its instances, and report where it is stuck."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from typing import runtime_checkable

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import StuckError
from pytest_pdserve.values.roles import kv_sources
from pytest_pdserve.values.workload import Workload

_RATE_S = 5.0
"""Seconds over which tokens/s are averaged."""
_STUCK_SHARE = 0.1
"""Share of a run's time limit: an instance without a new token for longer is stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Progress of a run, according to the counters of its instances."""

    workload: str
    """Workload id."""
    finished: int | None
    """Finished requests; None if no instance reports them."""
    num_prompts: int
    """Requests of the run."""
    generated_tokens: float
    """Tokens generated so far."""
    total_tokens: float | None
    """Tokens that all answers will have; None if lengths are not known."""

    @property
    def share(self) -> float | None:
        """Finished fraction of the run, at most 1; None if no instance reports it.

        Of tokens, if lengths are known, since requests that are sent at once also end at once.
        """
        if self.finished is None:
            return None
        if self.total_tokens:
            return min(self.generated_tokens / self.total_tokens, 1.0)
        return min(self.finished / self.num_prompts, 1.0)


class Rate:
    """Tokens/s over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def at(self, now: float, count: float) -> float | None:
        """Add the *count* at a monotonic time; return the rate, or None for the first count."""
        seen = self._seen
        seen.append((now, count))
        while now - seen[0][0] > _RATE_S and len(seen) > 2:
            seen.popleft()
        since, before = seen[0]
        return (count - before) / (now - since) if now > since else None


def progress_text(state: RunState, *, tok_s: float | None, elapsed_s: float) -> str:
    """Return requests done, tokens/s and the time left: ``640/1,024 requests, 3,214 tok/s, …``.

    :param tok_s: rate over the last seconds; None if not known yet.
    """
    if state.finished is None:
        return f"{elapsed_s:.0f} s"
    parts = [f"{min(state.finished, state.num_prompts):,}/{state.num_prompts:,} requests"]
    if tok_s is not None:
        parts.append(f"{tok_s:,.0f} tok/s")
    if state.share:
        left_s = elapsed_s * (1 - state.share) / state.share
        parts.append(f"{int(left_s // 60)}:{int(left_s % 60):02} left")
    return ", ".join(parts)


@runtime_checkable
class RunDisplay(Protocol):
    """A progress function that can also display a running measurement, e.g. as a bar."""

    def drawing(self, state: Callable[[], RunState]) -> AbstractContextManager[None]:
        """Display *state*, which is called repeatedly, until the block is left."""


def drawing(progress: Progress, run: RunProgress) -> AbstractContextManager[None]:
    """Display *run* until the block is left, if *progress* can."""
    if isinstance(progress, RunDisplay):
        return progress.drawing(run.state)
    return contextlib.nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """A run that is being measured."""

    workload: Workload
    instances: Sequence[Server]
    before: Mapping[str, Counters]
    """Counters before the run, by instance."""
    stalls: Stalls
    """Samples of the instances' work during the run."""
    limit_s: float
    """Seconds after which the client is stopped."""

    def __str__(self) -> str:
        """Return a progress line: workload and finished requests, if instances report them."""
        finished, total = self.finished(), self.workload.known().num_prompts
        if finished is None:
            return f"{self.workload.id}: measuring"
        return f"{self.workload.id}: {min(finished, total):,} of {total:,} requests"

    def finished(self) -> int | None:
        """Return the number of finished requests; None if no instance reports it.

        Prefill instances are left out: a prefilled request is not finished.
        """
        count = self._since("requests", self.stalls.finished)
        return None if count is None else int(count)

    def state(self) -> RunState:
        """Return the progress of the run."""
        load = self.workload.known()
        return RunState(
            workload=self.workload.id,
            finished=self.finished(),
            num_prompts=load.num_prompts,
            generated_tokens=self._since("generation_tokens", self.stalls.generated) or 0.0,
            total_tokens=load.num_prompts * load.lengths[1] if load.lengths else None,
        )

    def _since(self, counter: str, now: Callable[[str], float | None]) -> float | None:
        """Return the sum of a counter since the run began; None if no instance reports it."""
        counts = [
            count - (self.before[server.name].get(counter) or 0.0)
            for server in self.instances
            if server.role not in kv_sources() and (count := now(server.name)) is not None
        ]
        return sum(counts) if counts else None

    def timeout_error(self, sentence: str, log: str) -> ClientError:
        """Return the error of a client that did not end in time, with the work of each instance.

        :param sentence: what the client did.
        :param log: the end of its log.
        """
        instances = self.stalls.activities(time.monotonic())
        now = datetime.now()
        texts = [instance.text(now) for instance in instances]
        finished, total = self.finished(), self.workload.known().num_prompts
        if finished is not None:
            texts.insert(0, f"{max(total - finished, 0):,} of {total:,} requests have no answer")
        limit_s = self.limit_s * _STUCK_SHARE
        stuck = any(max(each.stalled_s, each.silent_s) > limit_s for each in instances)
        kind = StuckError if stuck else ClientError
        return kind("; ".join([sentence, *texts, log]))
