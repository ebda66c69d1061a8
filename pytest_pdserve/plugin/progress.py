"""Lines that say what a session waits for, past pytest's capture and folded to the terminal."""

from __future__ import annotations

import contextlib
import os
import textwrap
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.serving.run_progress import RunState

QUIET_S = 50.0
"""Least time between lines under ``-q``: with one to tell every 15 s, one a minute is written."""


def progress_to(config: pytest.Config, label: str) -> TerminalProgress:
    """Return a function that writes a line to the terminal, past pytest's capture."""
    pace = config.stash.setdefault(pace_key, Pace(said_s=time.monotonic()))
    return TerminalProgress(config=config, label=label, pace=pace)


@dataclass(slots=True, kw_only=True)
class TerminalProgress:
    """Writes lines to the terminal and draws runs on it, past pytest's capture."""

    config: pytest.Config
    label: str
    """What lines begin with: a topology, or the system."""
    pace: Pace
    """How often lines are written."""
    _drawn: bool = False
    """Whether a run is drawn now: it says what lines would say."""

    def __call__(self, text: str) -> None:
        """Write a line."""
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if terminal is None or self._drawn:
            return
        if not self.pace.is_due(terminal.verbosity, time.monotonic()):
            return
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            terminal.ensure_newline()
            writer = self.config.get_terminal_writer()
            if writer.width_of_current_line:
                terminal.line("")
            width = _width(terminal, writer.fullwidth)
            for line in folded(f"pdserve {self.label}: {text}", width):
                terminal.write_line(line, flush=True)

    @contextlib.contextmanager
    def drawing(self, state: Callable[[], RunState]) -> Iterator[None]:
        """Draw a run until the block is left, where a person looks at the terminal."""
        from pytest_pdserve.plugin.bar import drawn
        from pytest_pdserve.plugin.bar import draws

        if not draws(self.config.pluginmanager.getplugin("terminalreporter"), os.environ):
            yield
            return
        self._drawn = True
        try:
            with drawn(self.config, self.label, state):
                yield
        finally:
            self._drawn = False


@dataclass(slots=True, kw_only=True)
class Pace:
    """How often lines are written: under ``-q`` one a minute, under ``-qq`` none."""

    said_s: float
    """When the last one was, seconds of a monotonic clock."""

    def is_due(self, verbosity: int, now_s: float) -> bool:
        """Whether a line is written at *now_s*; then it is the last one."""
        if verbosity < -1 or (verbosity < 0 and now_s - self.said_s < QUIET_S):
            return False
        self.said_s = now_s
        return True


pace_key = pytest.StashKey[Pace]()


def folded(text: str, width: int | None) -> Sequence[str]:
    """Return *text* as lines of at most *width* columns; a longer word stays whole.

    :param width: None keeps *text* as it is.
    """
    if width is None:
        return [text]
    return textwrap.wrap(
        text,
        width,
        subsequent_indent="  ",
        break_long_words=False,  # a path can still be copied
        break_on_hyphens=False,
    )


def _width(terminal: Any, fullwidth: int) -> int | None:
    """Columns of a terminal; None for a file or a pipe, where lines stay whole for ``grep``."""
    return fullwidth if terminal.isatty else None
