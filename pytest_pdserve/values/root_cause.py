"""Why a server failed, as its log tells it: the first error of its innermost process.

vLLM is several processes with one log. A worker that fails has its engine fail, and that has the
API server fail; the last of them says "See root cause above". The cause is what the worker said.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.log_lines import LogEvent
from pytest_pdserve.values.log_lines import depth_of
from pytest_pdserve.values.log_lines import read_events

WITHOUT_A_WORD = (
    "a process below it ended without an error of its own: it was killed, by the kernel where "
    "memory ran out, or by a person"
)
_TOGETHER_S = 60.0
"""Errors with no longer pause between them are one trouble; earlier ones were survived."""
_NEAR_LINES = 30
"""A native library complains so few lines before the exception that follows from it."""
_LONGEST = 600
_POINTERS = (
    *("root cause", "EngineDeadError", "Executor failed.", "stack trace above"),
    *("KeyboardInterrupt", "SystemExit", "CancelledError"),
)
"""Parts of errors that only say that there is another one."""
_PASSED_ON = "Worker failed with error '"
"""Begins an error of an engine that quotes its worker, which may log elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCause:
    """The error that others follow from."""

    process: str
    """As its log calls it, e.g. ``Worker_TP0``; empty where the line names none."""
    text: str
    """The error, on one line."""
    line: int
    """Where it stands in what was read, counted from 1."""
    depth: int = 0
    """How far inside of the server it was: larger than that of its callers."""


def find_root_cause(lines: Iterable[str]) -> RootCause | None:
    """Return the cause of the last trouble in a log; None if it shows no error.

    Of errors close together in time, these are those of the innermost process, and of them the
    first exception, or the first error where none is an exception. Complaints of native libraries
    right before it are told with it. Errors that only point to others count where there is nothing
    else.
    """
    events, names = read_events(lines)
    last = _last_trouble(events)
    causes = [(event, text) for event in last if (text := _said(event))]
    if not causes:
        return _without_a_word(last)
    depths = [depth_of(event, names) for event, _ in causes]
    innermost = [cause for cause, d in zip(causes, depths, strict=True) if d == max(depths)]
    event, text = next((c for c in innermost if c[0].exceptions), innermost[0])
    if event.exceptions:
        native = [
            said
            for other, said in causes
            if other.native and 0 < event.line - other.line <= _NEAR_LINES and said not in text
        ]
        text = "; ".join([text, *(f"before it: {said}" for said in dict.fromkeys(native))])
    return RootCause(
        process=event.process or names.get(event.pid or 0, ""),
        text=text[:_LONGEST],
        line=event.line,
        depth=max(depths),
    )


def _last_trouble(events: Sequence[LogEvent]) -> list[LogEvent]:
    """Return the events from the last one back to the first longer pause."""
    found: list[LogEvent] = []
    for event in reversed(events):
        if found and abs(found[-1].at_s - event.at_s) > _TOGETHER_S:
            break
        found.append(event)
    return found[::-1]


def _said(event: LogEvent) -> str:
    """Return what an event says of a cause; empty if it only points to another."""
    said = [text for text in map(_cause_in, event.exceptions or (event.head,)) if text]
    if len(said) < 2:
        return "".join(said)
    return f"{said[0]}; then {said[-1]}"


def _cause_in(text: str) -> str:
    if _PASSED_ON in text:
        return text.partition(_PASSED_ON)[2].rpartition("', please")[0]
    return "" if any(part in text for part in _POINTERS) else text


def _without_a_word(events: Sequence[LogEvent]) -> RootCause | None:
    """Return what is known where all errors point to one that nobody logged."""
    if not events:
        return None
    first = events[0]
    return RootCause(process=first.process, text=WITHOUT_A_WORD, line=first.line)
