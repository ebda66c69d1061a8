"""Exit codes of ``pdserve``, the same for every command (see docs/judging.md)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit code of a command of ``pdserve``. ``pytest`` has its own codes."""

    @property
    def text(self) -> str:
        """Name for messages, e.g. ``NOT JUDGED``."""
        return self.name.replace("_", " ")

    OK = 0
    """Everything requested was judged, and nothing is worse."""
    FAIL = 1
    """At least one FAIL."""
    INTERRUPTED = 2
    """Ended early by Ctrl-C or SIGTERM."""
    FAULT_OF_PDSERVE = 3
    """An internal error of pdserve."""
    BAD_INPUT = 4
    """Bad input: options, files or missing programs, found before anything starts."""
    NOT_JUDGED = 6
    """Not everything requested could be judged."""
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


def combined_code(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the most important of several codes; OK if there are none."""
    given = set(codes)
    return next((code for code in _FIRST if code in given), ExitCode.OK)
