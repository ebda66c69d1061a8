"""Find the cause of a server's failure in its log: the first error of its innermost process.

vLLM consists of several processes with one log. If a worker fails, its engine fails too, and then
the API server, which logs "See root cause above". The cause is the error of the worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.log_lines import LogEvent
from pytest_pdserve.values.log_lines import depth_of
from pytest_pdserve.values.log_lines import read_events

KILLED_SILENTLY = (
    "a process below it ended without an error of its own: it was killed, by the kernel where "
    "memory ran out, or by a person"
)
_TOGETHER_S = 60.0
"""Errors with pauses up to so many seconds belong together; earlier ones are ignored."""
_NEAR_LINES = 30
"""Largest number of lines between an error of a native library and the exception it causes."""
_LONGEST = 600
_POINTERS = (
    *("root cause", "EngineDeadError", "Executor failed.", "stack trace above"),
    *("KeyboardInterrupt", "SystemExit", "CancelledError"),
)
"""Parts of errors that only refer to another one."""
_PASSED_ON = "Worker failed with error '"
"""Prefix of an engine's error that quotes its worker, whose log may be elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCause:
    """The error that caused the others."""

    process: str
    """Name of the process in the log, e.g. ``Worker_TP0``; empty if the line has none."""
    text: str
    """The error, on one line."""
    line: int
    """Line number in the part that was read, from 1."""
    depth: int = 0
    """Depth of its process inside the server; larger than that of its callers."""


def find_root_cause(lines: Iterable[str]) -> RootCause | None:
    """Return the cause of the last failure in a log; None if it has no error.

    Among errors close together in time, it is the first exception of the innermost process, or its
    first error if there is no exception. Errors of native libraries just before it are added.
    Errors that only refer to others count only if there is nothing else.
    """
    events, names = read_events(lines)
    last = _last_failure(events)
    causes = [(event, text) for event in last if (text := _cause_of(event))]
    if not causes:
        return _killed_silently(last)
    depths = [depth_of(event, names) for event, _ in causes]
    innermost = [cause for cause, d in zip(causes, depths, strict=True) if d == max(depths)]
    event, text = next((c for c in innermost if c[0].exceptions), innermost[0])
    if event.exceptions:
        native = [
            error
            for other, error in causes
            if other.native and 0 < event.line - other.line <= _NEAR_LINES and error not in text
        ]
        text = "; ".join([text, *(f"before it: {error}" for error in dict.fromkeys(native))])
    return RootCause(
        process=event.process or names.get(event.pid or 0, ""),
        text=text[:_LONGEST],
        line=event.line,
        depth=max(depths),
    )


def _last_failure(events: Sequence[LogEvent]) -> list[LogEvent]:
    """Return the events after the last pause of more than :data:`_TOGETHER_S`."""
    last: list[LogEvent] = []
    for event in reversed(events):
        if last and abs(last[-1].at_s - event.at_s) > _TOGETHER_S:
            break
        last.append(event)
    return last[::-1]


def _cause_of(event: LogEvent) -> str:
    """Return the cause in an event's text; empty if it only refers to another error."""
    causes = [text for text in map(_cause_in, event.exceptions or (event.head,)) if text]
    if len(causes) < 2:
        return "".join(causes)
    return f"{causes[0]}; then {causes[-1]}"


def _cause_in(text: str) -> str:
    if _PASSED_ON in text:
        return text.partition(_PASSED_ON)[2].rpartition("', please")[0]
    return "" if any(part in text for part in _POINTERS) else text


def _killed_silently(events: Sequence[LogEvent]) -> RootCause | None:
    """Return the cause if all errors refer to one that was not logged; None without errors."""
    if not events:
        return None
    first = events[0]
    return RootCause(process=first.process, text=KILLED_SILENTLY, line=first.line)
