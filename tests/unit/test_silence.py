"""Lines while something goes on: never long silence, and less of it under ``-q``."""

from __future__ import annotations

import queue
import re

import pytest

from pytest_pdserve.backends import heartbeat
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.plugin.bar import can_draw
from pytest_pdserve.plugin.progress import Pace
from pytest_pdserve.serving.readiness import REPORT_S

PATIENCE_S = 20.0
Told = queue.SimpleQueue[str]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a line told after a hundredth of a second of silence."""
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.01)


@pytest.mark.usefixtures("often")
def test_what_goes_on_is_told_again_and_again_with_its_seconds() -> None:
    told = Told()
    with Heartbeat(told.put, "stopping"):
        lines = [told.get(timeout=PATIENCE_S) for _ in range(2)]
    assert all(re.fullmatch(r"stopping, \d+ s", line) for line in lines)


@pytest.mark.usefixtures("often")
def test_what_goes_on_may_change_and_is_asked_for_when_it_is_told() -> None:
    told = Told()
    done = iter(range(100_000))
    with Heartbeat(told.put, "warming up") as beat:
        beat.now(lambda: f"{next(done)} of 9 requests")
        while (line := told.get(timeout=PATIENCE_S)).startswith("warming up"):
            pass
        lines = [line, told.get(timeout=PATIENCE_S)]
    assert [line.partition(",")[0] for line in lines] == ["0 of 9 requests", "1 of 9 requests"]


@pytest.mark.usefixtures("often")
def test_nothing_is_told_after_the_block() -> None:
    told = Told()
    with Heartbeat(told.put, "stopping"):
        told.get(timeout=PATIENCE_S)
    while not told.empty():
        told.get()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.1)


def test_lines_of_the_block_pass_and_nothing_else_is_told_at_once() -> None:
    lines: list[str] = []
    with Heartbeat(lines.append, "starting") as beat:
        beat("decode[0]: 1 of its pairs warm")
    assert lines == ["decode[0]: 1 of its pairs warm"]


def test_silence_is_shorter_than_a_quarter_of_a_minute() -> None:
    assert heartbeat.EVERY_S < 15
    assert REPORT_S < 15


def written(verbosity: int, seconds: range) -> list[int]:
    """Seconds at which a line is written of those at which one is told."""
    pace = Pace(last_line_s=0.0)
    return [at for at in seconds if pace.is_due(verbosity, float(at))]


@pytest.mark.parametrize(
    ("verbosity", "written_at"),
    [
        (0, [15, 30, 45, 60, 75, 90, 105, 120, 135]),
        (1, [15, 30, 45, 60, 75, 90, 105, 120, 135]),
        (-1, [60, 120]),
        (-2, []),
    ],
    ids=["plain", "-v", "-q", "-qq"],
)
def test_lines_are_written_as_often_as_asked(verbosity: int, written_at: list[int]) -> None:
    assert written(verbosity, range(15, 140, 15)) == written_at


class Terminal:
    """What pytest's reporter says of its terminal."""

    def __init__(self, *, isatty: bool = True, verbosity: int = 0) -> None:
        self.isatty, self.verbosity = isatty, verbosity


@pytest.mark.parametrize(
    ("terminal", "environment", "drawn"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(verbosity=1), {"TERM": "xterm"}, True),
        (Terminal(verbosity=-1), {"TERM": "xterm"}, False),
        (Terminal(isatty=False), {"TERM": "xterm"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, False),
    ],
    ids=["a terminal", "-v", "-q", "a file", "no cursor", "CI"],
)
def test_a_bar_is_drawn_where_a_person_looks(
    terminal: Terminal,
    environment: dict[str, str],
    drawn: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not can_draw(terminal, environment)  # of a plugin that draws by itself
    monkeypatch.setattr(Terminal, "__module__", "_pytest.terminal")
    assert can_draw(terminal, environment) == drawn
