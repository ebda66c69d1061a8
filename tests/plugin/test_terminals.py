"""Terminals that lack characters, and outputs that take no more: no command ends in a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from tests.support.simulated import DP
from tests.support.simulated import SimulatedProject

DESCRIPTION = "é → 世界 😀 «…»"
COMMAND = [sys.executable, "-m", "pytest_pdserve.commands.main"]
ENCODINGS = ("ascii", "latin-1", "cp437", "koi8-r", "utf-8")


@pytest.fixture
def described(sim: SimulatedProject) -> SimulatedProject:
    """A project whose system has a description that few encodings hold, and a stored session."""
    path = sim.baseline.with_name("system.toml")
    sim.run(*DP)
    path.write_text(path.read_text().replace('"simulated"', f'"{DESCRIPTION}"', 1))
    return sim


def printed(encoding: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """Exit code and text of a command on a terminal of that encoding."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    terminal.seek(0)
    return code, terminal.read()


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "command",
    [
        "plan --system sim --topology dp",
        "judge --system sim --partial",
        "judge --system sim --format json",
        "show --system sim",
        "doctor --system sim",
        "plan --help",
        "judge --help",
    ],
)
def test_every_command_ends_as_it_would(
    command: str, encoding: str, described: SimulatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = printed("utf-8", monkeypatch, *command.split())
    code, text = printed(encoding, monkeypatch, *command.split())
    assert (code, plain) in ((0, 0), (6, 6))
    assert text


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("ascii", r"(\xe9 \u2192 \u4e16\u754c \U0001f600 \xab...\xbb)"),
        ("latin-1", r"(é \u2192 \u4e16\u754c \U0001f600 «...»)"),
        ("utf-8", f"({DESCRIPTION})"),
    ],
)
def test_what_an_encoding_lacks_is_escaped_and_dots_are_dots(
    encoding: str, said: str, described: SimulatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = printed(encoding, monkeypatch, "plan", "--system", "sim", "--topology", "dp")
    assert text.splitlines()[0].startswith(f"# dp on sim {said}: 4 nodes;")


def test_the_rule_of_a_table_is_dashes_in_ascii(
    described: SimulatedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = printed("ascii", monkeypatch, "judge", "--system", "sim", "--partial")
    (rule,) = (line for line in text.splitlines() if line.startswith(" --"))
    assert set(rule.strip()) == {"-"}


def ended(*arguments: str, output: Path) -> tuple[int, str]:
    """Exit code and standard error of a command that prints to *output*."""
    with output.open("w") as file:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=file, stderr=subprocess.PIPE, text=True, check=False
        )
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "judge", "show"])
def test_a_full_disk_is_one_sentence(command: str, described: SimulatedProject) -> None:
    code, said = ended(command, "--system", "sim", output=Path("/dev/full"))
    assert code == 7
    assert said.splitlines()[-1] == (
        "pdserve: standard output cannot be written: No space left on device"
    )
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("command", ["plan", "judge", "show"])
def test_a_closed_pipe_is_the_end_without_a_word(command: str, described: SimulatedProject) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        done = subprocess.run(
            [*COMMAND, command, "--system", "sim"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 7
    assert [line for line in done.stderr.splitlines() if "rootdir" not in line] == []
