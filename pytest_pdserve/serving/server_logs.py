"""What servers log while a request of ours fails: the cause, or a KV handshake that was refused."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.allocation import cause_text
from pytest_pdserve.backends.allocation import log_cause
from pytest_pdserve.backends.allocation import log_size
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import RefusedError
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.handshakes import differences
from pytest_pdserve.values.handshakes import engine_facts
from pytest_pdserve.values.handshakes import is_engine
from pytest_pdserve.values.handshakes import refused_engine
from pytest_pdserve.values.record import Compiled
from pytest_pdserve.values.root_cause import RootCause

PATIENCE_S = 2.0
"""Longest wait for an error to be written: a shared file system shows it late."""
_STEP_S = 0.2
_START_LINES = 2000
"""Of a log: within them, an instance has said what it is."""
_COMPILED = "Compiling a graph for compile range"
"""In a line of vLLM's log, 0.11 to 0.32 (``compilation/backends.py``); older ones end otherwise."""
_LOADED = "Directly load "
"""Likewise: a graph, or all that was compiled ahead of time, came from the cache."""
Sizes = Mapping[Path, int]
"""Bytes of each log at one time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLogs:
    """The logs of servers that the session started; others have none here."""

    servers: tuple[Server, ...]

    @property
    def _logs(self) -> dict[Path, Server]:
        return {s.process.log: s for s in self.servers if s.process is not None}

    def sizes(self) -> Sizes:
        """Return how long each log is now."""
        return {log: log_size(log) for log in self._logs}

    @contextlib.contextmanager
    def telling(self, url: str) -> Iterator[None]:
        """Have the error of a request to *url* say what servers logged meanwhile.

        A request that a server rejects (HTTP 4xx) is our own mistake: its error stays as it is.
        """
        before = self.sizes()
        try:
            yield
        except RefusedError:
            raise
        except PathError as error:
            if not (told := self.told_since(before)):
                raise
            if isinstance(error, AnswerError):
                raise AnswerError(url, f"{error.why}; {told}", status=error.status) from error
            raise PathError(f"{error}; {told}") from error

    def told_since(
        self,
        before: Sizes,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> str:
        """Return what went wrong by what was logged since *before*; empty if nothing was.

        Of several servers that logged an error it is the one where it was innermost.
        """
        deadline = clock() + PATIENCE_S
        while before:
            found = [
                (log, cause) for log, size in before.items() if (cause := log_cause(log, size))
            ]
            if found:
                log, cause = max(found, key=lambda each: each[1].depth)
                return self._refusal(log, before[log], cause) or self._plain(log, cause)
            if clock() > deadline:
                break
            sleep(_STEP_S)
        return ""

    def compiled(self) -> Compiled | None:
        """Return whether the servers found their compiled kernels at their start, or made them.

        :returns: None if no log says it; ``cold`` if one of them compiled.
        """
        said = [line for log in self._logs for line in _beginning(log)]
        if any(_COMPILED in line for line in said):
            return "cold"
        return "warm" if any(_LOADED in line for line in said) else None

    def _plain(self, log: Path, cause: RootCause) -> str:
        return f"{self._logs[log].name} logged meanwhile, {cause_text(cause, log)}"

    def _refusal(self, log: Path, start: int, cause: RootCause) -> str:
        """Return that a KV handshake was refused, by whom and why; empty if none was."""
        engine = refused_engine(_lines(log, start))
        if engine is None:
            return ""
        here = self._logs[log].name
        first = cause.text.partition(". Local: ")[0]
        where = f"line {cause.line} of {log}: {first}"
        other = next(
            (each for each in self._logs if each != log and is_engine(engine, _beginning(each))),
            None,
        )
        if other is None:
            return f"{here} refused the KV handshake with engine {engine} ({where})"
        there = self._logs[other].name
        known = differences(engine_facts(_beginning(log)), engine_facts(_beginning(other)))
        said = ", ".join(f"{each.fact} is {each.here} and {each.there}" for each in known)
        differ = f"they differ, {said}" if said else "their logs show no difference"
        return f"{here} refused the KV handshake with {there}: {differ} ({where})"


def _beginning(log: Path) -> Sequence[str]:
    return _lines(log, 0, _START_LINES)


def _lines(log: Path, start: int, count: int | None = None) -> Sequence[str]:
    """Return lines of a log from a byte on; none if it cannot be read."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(start)
            return list(itertools.islice(file, count))
    except OSError:
        return []
