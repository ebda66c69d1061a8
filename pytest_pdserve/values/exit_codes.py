"""Exit codes of ``pdserve``: one table for every command; docs/judging.md prints it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command of ``pdserve`` ends with. pytest keeps its own codes."""

    @property
    def words(self) -> str:
        """The code's name as people read it, e.g. ``NOT JUDGED``."""
        return self.name.replace("_", " ")

    OK = 0
    """All that was asked was judged, and nothing is worse."""
    FAIL = 1
    """Something FAILed."""
    INTERRUPTED = 2
    """Ctrl-C or SIGTERM ended it before it was done."""
    FAULT_OF_PDSERVE = 3
    """A fault of pdserve itself."""
    BAD_INPUT = 4
    """Bad input: options, files or missing programs, found before anything starts."""
    NOT_JUDGED = 6
    """Nothing, or not all that was asked, could be judged."""
    ERROR = 7
    """An ERROR: a machine, a server or the network failed, or a run is invalid."""


_FIRST = (
    ExitCode.FAULT_OF_PDSERVE,
    ExitCode.INTERRUPTED,
    ExitCode.BAD_INPUT,
    ExitCode.ERROR,
    ExitCode.FAIL,
    ExitCode.NOT_JUDGED,
)


def first_of(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code to exit with if several apply; OK if none does."""
    held = set(codes)
    return next((code for code in _FIRST if code in held), ExitCode.OK)
