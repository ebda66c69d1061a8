"""Find errors that servers logged while a request failed, e.g. a rejected KV handshake."""

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
"""Longest wait, seconds, for an error in a log: a shared file system shows it late."""
_STEP_S = 0.2
_START_LINES = 2000
"""Lines at the beginning of a log that contain the instance's configuration."""
_COMPILED = "Compiling a graph for compile range"
"""Part of a log line of vLLM 0.11 to 0.32 (``compilation/backends.py``) for a compilation."""
_LOADED = "Directly load "
"""Part of a log line for a graph, or all compiled code, that was loaded from the cache."""
Sizes = Mapping[Path, int]
"""Size of each log in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLogs:
    """Logs of the servers that the session started."""

    servers: tuple[Server, ...]

    @property
    def _logs(self) -> dict[Path, Server]:
        return {s.process.log: s for s in self.servers if s.process is not None}

    def sizes(self) -> Sizes:
        """Return the present size of each log."""
        return {log: log_size(log) for log in self._logs}

    @contextlib.contextmanager
    def explaining_errors(self, url: str) -> Iterator[None]:
        """Add errors that servers log during the block to a :class:`PathError` of the block.

        A rejected request (HTTP 4xx) is an error of the caller: its exception is not changed.
        """
        before = self.sizes()
        try:
            yield
        except RefusedError:
            raise
        except PathError as error:
            if not (logged := self.errors_since(before)):
                raise
            if isinstance(error, AnswerError):
                raise AnswerError(url, f"{error.why}; {logged}", status=error.status) from error
            raise PathError(f"{error}; {logged}") from error

    def errors_since(
        self,
        before: Sizes,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> str:
        """Return a sentence about the error that was logged since *before*; empty if none was.

        If several servers logged an error, the innermost one is reported.
        """
        deadline = clock() + PATIENCE_S
        while before:
            errors = [
                (log, cause) for log, size in before.items() if (cause := log_cause(log, size))
            ]
            if errors:
                log, cause = max(errors, key=lambda error: error[1].depth)
                return self._refusal(log, before[log], cause) or self._error_text(log, cause)
            if clock() > deadline:
                break
            sleep(_STEP_S)
        return ""

    def compiled(self) -> Compiled | None:
        """Return whether the servers loaded compiled kernels at their start, or compiled them.

        :returns: None if no log shows it; ``cold`` if at least one server compiled.
        """
        lines = [line for log in self._logs for line in _beginning(log)]
        if any(_COMPILED in line for line in lines):
            return "cold"
        return "warm" if any(_LOADED in line for line in lines) else None

    def _error_text(self, log: Path, cause: RootCause) -> str:
        return f"{self._logs[log].name} logged meanwhile, {cause_text(cause, log)}"

    def _refusal(self, log: Path, start: int, cause: RootCause) -> str:
        """Return a sentence about a refused KV handshake and its reason; empty if none was."""
        engine = refused_engine(_lines(log, start))
        if engine is None:
            return ""
        here = self._logs[log].name
        first = cause.text.partition(". Local: ")[0]
        where = f"line {cause.line} of {log}: {first}"
        other = next(
            (path for path in self._logs if path != log and is_engine(engine, _beginning(path))),
            None,
        )
        if other is None:
            return f"{here} refused the KV handshake with engine {engine} ({where})"
        there = self._logs[other].name
        facts = differences(engine_facts(_beginning(log)), engine_facts(_beginning(other)))
        text = ", ".join(f"{each.fact} is {each.here} and {each.there}" for each in facts)
        differ = f"they differ, {text}" if text else "their logs show no difference"
        return f"{here} refused the KV handshake with {there}: {differ} ({where})"


def _beginning(log: Path) -> Sequence[str]:
    return _lines(log, 0, _START_LINES)


def _lines(log: Path, start: int, count: int | None = None) -> Sequence[str]:
    """Return at most *count* lines of a log from byte *start*; none if it cannot be read."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(start)
            return list(itertools.islice(file, count))
    except OSError:
        return []
