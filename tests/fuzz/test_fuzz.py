"""Odd inputs of every kind: some of them in each run of the tests, thousands by ``make fuzz``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fuzz.kinds import KINDS
from tests.support.fuzz.kinds import shares
from tests.support.fuzz.world import Outcome
from tests.support.fuzz.world import World
from tests.support.fuzz.world import wrong_end

ROOT = Path(__file__).parents[2]
TRIES = 24


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.fuzz.run", "--workers", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_input_ends_in_a_traceback_hangs_or_has_something_written_elsewhere() -> None:
    done = run("--tries", str(TRIES), "--seed", "make test")
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert "seed 'make test': 0 faults; " in done.stdout


def test_every_kind_is_tried_however_few_tries_there_are() -> None:
    assert {kind for kind, _ in shares(1)} == set(KINDS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world with an empty project, and little patience."""
    made = World(tmp_path, limit_s=0.2)
    made.project.mkdir()
    return made


def end(_: World) -> int:
    return 0


def raise_an_error(_: World) -> int:
    raise ValueError("of nobody")


def never_end(_: World) -> int:
    while True:
        pass


def wait_for_a_pipe(world: World) -> int:
    os.mkfifo(world.project / "pipe")
    return len((world.project / "pipe").read_bytes())


def sleep_and_swallow_the_interrupt(_: World) -> int:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        return 0
    return 1


def write_beside_the_project(world: World) -> int:
    return (world.project.parent / "x").write_text("x")


def make_a_folder_above(world: World) -> int:
    (world.root / "x").mkdir()
    return 0


def change_a_neighbour(world: World) -> int:
    (world.project.parent / "neighbour.txt").unlink()
    return 0


def move_out(world: World) -> int:
    (world.project / "a").write_text("a")
    (world.project / "a").rename(world.project.parent / "a")
    return 0


def write_into_the_project(world: World) -> int:
    return (world.project / "x").write_text("x")


@pytest.mark.parametrize(
    ("planted", "trouble"),
    [
        (end, []),
        (write_into_the_project, []),
        (raise_an_error, ["a traceback:"]),
        (never_end, ["no end within 0.2 s, in:"]),
        (wait_for_a_pipe, ["no end within 0.2 s, in:"]),
        (sleep_and_swallow_the_interrupt, ["no end within 0.2 s, in:"]),
        (write_beside_the_project, ["written outside: {}/x", "changed outside: {}/x"]),
        (make_a_folder_above, ["written outside: {}/../x", "changed outside: {}/../x"]),
        (
            change_a_neighbour,
            ["written outside: {}/neighbour.txt", "changed outside: {}/neighbour.txt"],
        ),
        (move_out, ["written outside: {}/a", "changed outside: {}/a"]),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_a_planted_fault_is_seen(
    planted: Callable[[World], int], trouble: list[str], world: World
) -> None:
    around = world.project.parent
    found = world.watch(lambda: planted(world)).trouble
    expected = [os.path.normpath(text.format(around)) for text in trouble]
    assert [text.partition("\n")[0] for text in found] == expected


@pytest.mark.parametrize(
    ("code", "output", "trouble"),
    [
        (0, "", []),
        (4, "pdserve: no", []),
        (3, "", ["exit code 3"]),
        (4, "", ["exit code 4 without a word"]),
        (
            3,
            "Traceback (most recent call last):\n  File",
            ["exit code 3", "a traceback was printed"],
        ),
        (0, "INTERNALERROR> x", ["a traceback was printed"]),
        (4, r"errors[0] is 'Traceback (most recent call last):\n  File'", []),
    ],
    ids=["success", "bad input", "a fault", "silence", "traceback", "of pytest", "quoted"],
)
def test_a_wrong_end_is_seen(code: int, output: str, trouble: list[str]) -> None:
    assert wrong_end(Outcome(code=code, output=output), {0, 1, 4}) == trouble


@pytest.mark.slow
def test_one_try_is_repeated_by_its_kind_and_number() -> None:
    *output, last = run("--only", "command:7", "--seed", "x").stdout.splitlines()
    assert any(line.startswith("pdserve: ") for line in output)
    assert last.startswith("1 tries, seed 'x': 0 faults; ")
