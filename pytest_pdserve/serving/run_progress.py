"""How far a run is, and what it hangs on: by what instances count while it is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import StuckError
from pytest_pdserve.values.roles import kv_sources
from pytest_pdserve.values.workload import Workload

_STUCK_SHARE = 0.1
"""Of a run's limit: an instance that makes no token for longer than that is stuck."""


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
        counts = [
            now - (self.before[server.name].get("requests") or 0.0)
            for server in self.instances
            if server.role not in kv_sources()
            and (now := self.stalls.finished(server.name)) is not None
        ]
        return int(sum(counts)) if counts else None

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
