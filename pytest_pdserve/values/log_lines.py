"""Parse errors in the log of a server: log records, tracebacks, messages of native libraries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_LINE = 4000
_PROCESS = re.compile(r"\((?P<name>[A-Za-z][\w-]*)[^()]* pid=(?P<pid>\d+)\) ?")
"""Prefix of output of vLLM's processes, e.g. ``(Worker_TP0 pid=123)``; also of Ray."""
_RECORD = re.compile(
    r"(?:\[[^\]]*\] )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
    r"(?P<date>\d\d-\d\d) (?P<time>\d\d:\d\d:\d\d) \[?(?P<where>[\w./-]+:\d+)\] ?(?P<text>.*)"
)
"""A record of vLLM's logger; each line of a long message has this prefix."""
_GLOG = re.compile(
    r"(?P<level>[A-Z])(?P<date>\d{4}) (?P<time>\d\d:\d\d:\d\d)\S* +(?P<pid>\d+) \S+\] (?P<text>.*)"
)
"""A record of a native library that uses glog, e.g. NIXL's ``E1127 …``."""
_STAMPED = re.compile(
    r"\[?(?:\d{4}-(?P<date>\d\d-\d\d)[T ](?P<time>\d\d:\d\d:\d\d)|\d{10}\.\d+\])"
    r"(?:(?!\b(?:INFO|WARN|WARNING|DEBUG|TRACE)\b).){0,80}?"
    r"\b(?:ERROR|FATAL|CRITICAL)\b[ :]*(?P<text>.+)"
)
"""A record of the router, of NIXL's Python, or of UCX."""
_PLAIN = re.compile(
    r"(?:[\w./-]+: (?:fatal )?error: |error: )(?P<text>.+)"
    r"|(?P<whole>Fatal Python error: .+|Killed|Segmentation fault.*|terminate called after .+)"
)
"""An error of an argument parser, Slurm, the shell or the C++ runtime."""
_PANIC = re.compile(r"thread '.*' (?:\(\d+\) )?panicked at (?P<text>.+)")
_TRACEBACK = "Traceback (most recent call last):"
_ENGINE_FILES = ("core.py:", "engine/core.py:")
"""Source files of the engine process, for old versions of vLLM without process names."""
_MAX_DETAILS = 2
"""Number of further lines of an exception that are kept."""


@dataclass(slots=True, kw_only=True)
class LogEvent:
    """An error in a log, with all of its lines."""

    line: int
    """Number of its first line, from 1."""
    at_s: float
    """Time in seconds since the start of the year; for a line without a time, that of the last line
    with one."""
    process: str = ""
    """Name of the process; empty if the line names none."""
    pid: int | None = None
    where: str = ""
    """File and line in vLLM's source; empty if the line has none."""
    native: bool = False
    """True if a native library logged it."""
    head: str = ""
    """First line of the message."""
    exceptions: list[str] = field(default_factory=list)
    """Exceptions of its tracebacks, in order: the first caused the others."""
    _inside: bool = False
    _details: int = _MAX_DETAILS

    def add(self, text: str) -> bool:
        """Add a line; return whether it belongs to a traceback."""
        if text.startswith(_TRACEBACK):
            self._inside = True
        elif self._inside and (not text or text[0].isspace()):
            pass  # a frame
        elif self._inside:
            self._inside, self._details = False, 0
            if text not in self.exceptions:
                self.exceptions.append(text.rstrip())
        elif text[:1].isspace() and self.exceptions and self._details < _MAX_DETAILS:
            self._details += 1
            if "For further information" not in text:
                detail = text.strip().partition(" [type=")[0]
                self.exceptions[-1] = f"{self.exceptions[-1]} {detail}"
        elif text.startswith(("During handling of", "The above exception was")) or not text:
            pass
        else:
            self._details = _MAX_DETAILS
            self.head = self.head or text.strip()
            return False
        return True


def depth_of(event: LogEvent, names: Mapping[int, str]) -> int:
    """Return how deep inside the server an event occurred: 3 for a worker, 2 for an engine, else 1.

    :param names: names of processes by id.
    """
    name = (event.process or names.get(event.pid or 0, "")).lower()
    if "worker" in name:
        return 3
    engine = name.startswith("enginecore") or (not name and event.where.startswith(_ENGINE_FILES))
    return 2 if engine else 1


def read_events(lines: Iterable[str]) -> tuple[list[LogEvent], dict[int, str]]:
    """Return all errors of a log in order, and the names of processes by id."""
    reader = _Reader()
    for number, line in enumerate(lines, start=1):
        plain = _ANSI.sub("", line[:_LONGEST_LINE]).rstrip("\r\n")
        reader.take(plain.rpartition("\r")[2], number)  # progress bars overwrite their line
    return reader.events, reader.names


class _Reader:
    """Groups lines of a log into events."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.names: dict[int, str] = {}
        self._open: dict[tuple[int | None, str], LogEvent] = {}
        """Events that may continue, by process and place in the source."""
        self._panicked: LogEvent | None = None
        self._now_s = 0.0

    def take(self, line: str, number: int) -> None:
        name, pid, text = "", None, line
        while match := _PROCESS.match(text):
            name, pid, text = match["name"], int(match["pid"]), text[match.end() :]
        if pid is not None:
            self.names[pid] = name
        record = _RECORD.match(text)
        where = record["where"] if record else ""
        if record:
            self._now_s = _seconds(record["date"], record["time"])
            text = record["text"]
            if record["level"] not in ("ERROR", "CRITICAL"):
                return
        elif self._foreign(text, number, pid):
            return
        self._body(
            text, LogEvent(line=number, at_s=self._now_s, process=name, pid=pid, where=where)
        )

    def _body(self, text: str, fresh: LogEvent) -> None:
        """Add a line to the event that it continues, or begin a new event."""
        key = (fresh.pid, fresh.where)
        event = self._open.get(key)
        if event is not None and event.where and event.at_s != fresh.at_s:
            event = None  # another record of the same place
        if event is None:
            if not fresh.where and not text.startswith(_TRACEBACK):
                return  # other output
            event = self._open[key] = fresh
            self.events.append(event)
        if not event.add(text) and not event.where:
            del self._open[key]  # output that follows a traceback

    def _foreign(self, text: str, number: int, pid: int | None) -> bool:
        """Add an event for an error line of another logger; return whether it was one."""
        if self._panicked is not None and text:
            self._panicked.head, self._panicked = f"{self._panicked.head} {text.strip()}", None
            return True
        if match := _GLOG.match(text):
            self._now_s = _seconds(match["date"], match["time"])
            if match["level"] in "EF":
                error = match["text"].strip()
                self._single_line(error, number, int(match["pid"]), native=True)
            return True
        if match := _STAMPED.match(text):
            if match["date"]:
                self._now_s = _seconds(match["date"], match["time"])
            self._single_line(match["text"].strip(), number, pid, native=True)
            return True
        if match := _PANIC.match(text):
            self._panicked = self._single_line(f"panicked at {match['text']}", number, pid)
            return True
        if match := _PLAIN.match(text):
            self._single_line(match["whole"] or text, number, pid)
            return True
        return False

    def _single_line(
        self, error: str, number: int, pid: int | None, *, native: bool = False
    ) -> LogEvent:
        event = LogEvent(line=number, at_s=self._now_s, pid=pid, native=native, head=error)
        self.events.append(event)
        return event


def _seconds(date: str, clock: str) -> float:
    """Return date and time as seconds since the start of the year; every month has 31 days."""
    month, day = int(date[:2]), int(date[-2:])
    hours, minutes, seconds = map(int, clock.split(":"))
    return float(((month * 31 + day) * 24 + hours) * 3600 + minutes * 60 + seconds)
