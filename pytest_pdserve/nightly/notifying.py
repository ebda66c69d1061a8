"""Deliver events to a user's command, one call each, as JSON on standard input."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_pdserve.results.kinds import NIGHTLY_EVENT
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.nightly import Event

TRIES = 2
"""Maximum calls of the command for one event."""
PAUSE_S = 10.0
"""Seconds between two calls."""
LIMIT_S = 60.0
"""Seconds that one call may take."""
ALL_S = 600.0
"""Seconds after which no more events are delivered: the rest waits for the next night."""
_TAIL = 2000
"""Bytes at the end of a command's output that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """A command that receives events, with its limits."""

    argv: tuple[str, ...]
    folder: Path
    """Working folder of the command."""
    tries: int = TRIES
    pause_s: float = PAUSE_S
    limit_s: float = LIMIT_S
    all_s: float = ALL_S


def deliver(
    notifier: Notifier,
    events: Sequence[Event],
    delivered: Callable[[Event], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[str, ...]:
    """Deliver each event to a command; return the failures, a sentence each.

    Events of one key keep their order: after one that fails, later ones of its key wait too.

    :param delivered: called with each event for which the command exited with code 0.
    """
    began = clock()
    failed: dict[str, str] = {}
    waiting = 0
    for event in events:
        if event.key in failed or clock() - began > notifier.all_s:
            waiting += 1
            continue
        why = _try(notifier, event)
        if why:
            failed[event.key] = f"the notifier failed for {event.kind} {event.key}: {why}"
        else:
            delivered(event)
    failures = list(failed.values())
    if waiting:
        failures.append(f"{waiting} more events wait for the next night")
    return tuple(failures)


def _try(notifier: Notifier, event: Event) -> str:
    """Deliver an event; return why that failed, empty if it succeeded."""
    why = ""
    for number in range(notifier.tries):
        if number:
            time.sleep(notifier.pause_s)
        why = _call(notifier, event)
        if not why:
            return ""
    return why


def _call(notifier: Notifier, event: Event) -> str:
    data = json.dumps(NIGHTLY_EVENT.dump(event, "event"), ensure_ascii=False).encode()
    # Files, not pipes: a background process of the command cannot keep a pipe open.
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
        stdin.write(data)
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                notifier.argv,
                cwd=notifier.folder,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return f"{notifier.argv[0]} cannot be started: {why}"
        try:
            code = process.wait(notifier.limit_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"it did not end in {notifier.limit_s:g} s and was killed"
        return "" if code == 0 else f"it exited with code {code}{_last_line(output)}"


def _last_line(file: IO[bytes]) -> str:
    """Return the last line of the command's output, without secrets."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return ""
    line = environment_redactor().text(lines[-1].strip())
    return ": " + "".join(each for each in line if each.isprintable())[:300]
