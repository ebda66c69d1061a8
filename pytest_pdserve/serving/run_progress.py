"""How far a run is, and what it hangs on: by what instances count while it is measured."""

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
"""Time over which tokens/s are counted."""
_STUCK_SHARE = 0.1
"""Of a run's limit: an instance that makes no token for longer than that is stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """How far a run is, as instances say."""

    workload: str
    """Its id."""
    done: int | None
    """Requests that were answered to their end; None if no instance tells."""
    asked: int
    """Requests of the run."""
    made: float
    """Tokens made."""
    to_make: float | None
    """Tokens that all answers will have; None where lengths are not known."""

    @property
    def share(self) -> float | None:
        """What is done of all; None if no instance tells.

        By tokens where lengths are known: requests that are sent at once end at once.
        """
        if self.done is None:
            return None
        share = self.made / self.to_make if self.to_make else self.done / self.asked
        return min(share, 1.0)


class Rate:
    """Tokens/s, by what was counted in the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def at(self, now: float, count: float) -> float | None:
        """Take in the *count* at a monotonic time; return the rate, None at the first."""
        seen = self._seen
        seen.append((now, count))
        while now - seen[0][0] > _RATE_S and len(seen) > 2:
            seen.popleft()
        since, before = seen[0]
        return (count - before) / (now - since) if now > since else None


def words_of(state: RunState, *, tok_s: float | None, elapsed_s: float) -> str:
    """Return requests done, tokens/s and the time left: ``640/1,024 requests, 3,214 tok/s, …``.

    :param tok_s: made in the last seconds; None if not known yet.
    """
    if state.done is None:
        return f"{elapsed_s:.0f} s"
    said = [f"{min(state.done, state.asked):,}/{state.asked:,} requests"]
    if tok_s is not None:
        said.append(f"{tok_s:,.0f} tok/s")
    if state.share:
        left_s = elapsed_s * (1 - state.share) / state.share
        said.append(f"{int(left_s // 60)}:{int(left_s % 60):02} left")
    return ", ".join(said)


@runtime_checkable
class DrawsRuns(Protocol):
    """A progress function that can also show a run while it goes on."""

    def drawing(self, state: Callable[[], RunState]) -> AbstractContextManager[None]:
        """Show what *state* says, until the block is left."""


def drawing(progress: Progress, run: RunProgress) -> AbstractContextManager[None]:
    """Show *run* until the block is left, where *progress* can do so."""
    if isinstance(progress, DrawsRuns):
        return progress.drawing(run.state)
    return contextlib.nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """A run that is measured now."""

    workload: Workload
    instances: Sequence[Server]
    before: Mapping[str, Counters]
    """What instances had counted before it, by name."""
    stalls: Stalls
    """What they are seen to do meanwhile."""
    limit_s: float
    """How long it may take."""

    def __str__(self) -> str:
        """Say how far it is, as far as instances tell."""
        done, asked = self.finished(), self.workload.known().num_prompts
        if done is None:
            return f"{self.workload.id}: measuring"
        return f"{self.workload.id}: {min(done, asked):,} of {asked:,} requests"

    def finished(self) -> int | None:
        """Return the requests that were answered to their end; None if no instance tells.

        These are counted where tokens come from: a request that is prefilled is not finished.
        """
        count = self._since("requests", self.stalls.finished)
        return None if count is None else int(count)

    def state(self) -> RunState:
        """Return how far it is."""
        load = self.workload.known()
        return RunState(
            workload=self.workload.id,
            done=self.finished(),
            asked=load.num_prompts,
            made=self._since("generation_tokens", self.stalls.made) or 0.0,
            to_make=load.num_prompts * load.lengths[1] if load.lengths else None,
        )

    def _since(self, counter: str, now: Callable[[str], float | None]) -> float | None:
        """What all instances that answer counted since the run began; None if none tells."""
        counts = [
            count - (self.before[server.name].get(counter) or 0.0)
            for server in self.instances
            if server.role not in kv_sources() and (count := now(server.name)) is not None
        ]
        return sum(counts) if counts else None

    def hung(self, said: str, log: str) -> ClientError:
        """Return the error of a client that did not end in time, with what it waits for.

        :param said: of the client.
        :param log: what its log tells.
        """
        standings = self.stalls.standings(time.monotonic())
        now = datetime.now()
        words = [standing.words(now) for standing in standings]
        done, asked = self.finished(), self.workload.known().num_prompts
        if done is not None:
            words.insert(0, f"{max(asked - done, 0):,} of {asked:,} requests have no answer")
        stuck = any(
            max(each.still_s, each.silent_s) > self.limit_s * _STUCK_SHARE for each in standings
        )
        kind = StuckError if stuck else ClientError
        return kind("; ".join([said, *words, log]))
