"""A progress bar for runs at the bottom of the terminal, outside of pytest's capture."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import TextIO

import pytest

from pytest_pdserve.serving.run_progress import Rate
from pytest_pdserve.serving.run_progress import RunState
from pytest_pdserve.serving.run_progress import progress_text

if TYPE_CHECKING:
    from rich.progress import Progress

INTERVAL_S = 0.5
"""Seconds between two updates."""


def can_draw(terminal: Any, environment: Mapping[str, str]) -> bool:
    """Tell whether a bar can be drawn: on an interactive terminal that no other plugin draws on.

    :param terminal: pytest's reporter; pytest-sugar, which has bars, replaces it.
    """
    return (
        type(terminal).__module__ == "_pytest.terminal"
        and terminal.isatty
        and terminal.verbosity >= 0
        and environment.get("TERM", "dumb") != "dumb"
        and not environment.get("CI")
    )


@contextlib.contextmanager
def drawing_bar(config: pytest.Config, label: str, state: Callable[[], RunState]) -> Iterator[None]:
    """Draw a bar below the output of pytest while the context is open; then remove it.

    :param label: text before the bar.
    :param state: returns the progress of the run; called from a thread.
    """
    with _terminal(config) as file:
        writer = config.get_terminal_writer()
        column = writer.width_of_current_line % writer.fullwidth
        if writer.width_of_current_line:
            file.write("\n")
        try:
            with _bar(file, label, state, color=writer.hasmarkup):
                yield
        finally:
            if writer.width_of_current_line:  # back to where pytest continues to write
                file.write(f"\x1b[1A\r\x1b[{column}C" if column else "\x1b[1A\r")


@contextlib.contextmanager
def _terminal(config: pytest.Config) -> Iterator[TextIO]:
    """Open the terminal again, since pytest captures output to its own streams."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        sys.stdout.flush()
        copy = os.dup(1)
        encoding = sys.stdout.encoding
    with open(copy, "w", encoding=encoding, errors="replace") as file:
        yield file


@contextlib.contextmanager
def _bar(file: TextIO, label: str, state: Callable[[], RunState], *, color: bool) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn
    from rich.progress import Progress
    from rich.progress import TextColumn
    from rich.table import Column

    first = TextColumn(
        "pdserve {task.description}",
        markup=False,
        table_column=Column(no_wrap=True, overflow="ellipsis"),
    )
    last = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True))
    picture = Progress(
        *(first, BarColumn(bar_width=24), last),
        console=Console(
            file=file,
            width=os.get_terminal_size(file.fileno()).columns,
            no_color=not color,
            highlight=False,
        ),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    over = threading.Event()
    drawing = threading.Thread(
        target=_draw, args=(picture, label, state, over), name="pdserve bar", daemon=True
    )
    with picture:
        drawing.start()
        try:
            yield
        finally:
            over.set()
            drawing.join()


def _draw(
    picture: Progress, label: str, state: Callable[[], RunState], over: threading.Event
) -> None:
    """Update the bar until *over* is set."""
    began = time.monotonic()
    task = picture.add_task(label, total=None, text="")
    rate = Rate()
    while True:
        now, run = time.monotonic(), state()
        share = run.share
        picture.update(
            task,
            description=f"{label} {run.workload}",
            total=None if share is None else 1.0,
            completed=share or 0.0,
            text=progress_text(
                run, tok_s=rate.at(now, run.generated_tokens), elapsed_s=now - began
            ),
        )
        picture.refresh()
        if over.wait(INTERVAL_S):
            return
