"""Progress lines of a session, outside of pytest's capture and wrapped to the terminal."""

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
"""Minimum seconds between lines under ``-q``: of lines every 15 s, one per minute is written."""


def progress_to(config: pytest.Config, label: str) -> TerminalProgress:
    """Return a function that writes lines to the terminal, outside of pytest's capture."""
    pace = config.stash.setdefault(pace_key, Pace(last_line_s=time.monotonic()))
    return TerminalProgress(config=config, label=label, pace=pace)


@dataclass(slots=True, kw_only=True)
class TerminalProgress:
    """Writes lines and draws progress bars on the terminal, outside of pytest's capture."""

    config: pytest.Config
    label: str
    """Prefix of lines: a topology, or the system."""
    pace: Pace
    _drawn: bool = False
    """True if a bar is drawn now, which replaces lines."""

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
        """Draw a run while the context is open, if the terminal is interactive."""
        from pytest_pdserve.plugin.bar import can_draw
        from pytest_pdserve.plugin.bar import drawing_bar

        if not can_draw(self.config.pluginmanager.getplugin("terminalreporter"), os.environ):
            yield
            return
        self._drawn = True
        try:
            with drawing_bar(self.config, self.label, state):
                yield
        finally:
            self._drawn = False


@dataclass(slots=True, kw_only=True)
class Pace:
    """Rate of lines: under ``-q`` one per minute, under ``-qq`` none."""

    last_line_s: float
    """Time of the last line, in seconds of a monotonic clock."""

    def is_due(self, verbosity: int, now_s: float) -> bool:
        """Tell whether a line is written at *now_s*; if so, record it."""
        if verbosity < -1 or (verbosity < 0 and now_s - self.last_line_s < QUIET_S):
            return False
        self.last_line_s = now_s
        return True


pace_key = pytest.StashKey[Pace]()


def folded(text: str, width: int | None) -> Sequence[str]:
    """Wrap *text* to lines of at most *width* columns; longer words stay whole.

    :param width: None keeps *text* unchanged.
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
    """Return the columns of a terminal; None for a file or a pipe, where lines stay whole."""
    return fullwidth if terminal.isatty else None
