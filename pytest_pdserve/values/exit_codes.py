"""Exit codes of ``pdserve``: one table for every command; docs/judging.md prints it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command of ``pdserve`` ends with. pytest keeps its own codes."""

    OK = 0
    """All that was asked was judged, and nothing is worse."""
    WORSE = 1
    """Something FAILed."""
    INTERRUPTED = 2
    """Ctrl-C or SIGTERM ended it before it was done."""
    FAULT = 3
    """A fault of pdserve itself."""
    INPUT = 4
    """Bad input: options, files or missing programs, found before anything starts."""
    UNJUDGED = 6
    """Nothing, or not all that was asked, could be judged."""
    TROUBLE = 7
    """An ERROR: a machine, a server or the network failed, or a run is invalid."""


_FIRST = (
    ExitCode.FAULT,
    ExitCode.INTERRUPTED,
    ExitCode.INPUT,
    ExitCode.TROUBLE,
    ExitCode.WORSE,
    ExitCode.UNJUDGED,
)


def first_of(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code to exit with if several apply; OK if none does."""
    held = set(codes)
    return next((code for code in _FIRST if code in held), ExitCode.OK)
