"""What a session will take and what it took, as it says it and as its run folder keeps it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from tests.support.house import WORKLOAD
from tests.support.house import House

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def kept(house: House) -> list[dict[str, Any]]:
    """``phases.json`` of every session, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(house.runs.glob("*/phases.json"))]


def planned(house: House, capsys: pytest.CaptureFixture[str]) -> str:
    """The first line of the plan of 1p1d."""
    capsys.readouterr()
    root = ("--rootdir", str(house.path), "-c", str(house.path / "tox.ini"))
    assert main(["plan", "--system", "stub", "--topology", "1p1d", *root]) == 0
    return capsys.readouterr().out.splitlines()[0]


def test_a_session_says_what_it_will_take_and_took_and_the_next_one_knows(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.system(cluster={"price_per_gpu_hour": 2.5, "currency": "EUR"})
    house.suites("sweep")
    assert planned(house, capsys).startswith(
        "# a session takes about 2.6 min (from defaults: 150 s a start, "
    )
    result = house.run("--topology", "1p1d")
    result.stdout.fnmatch_lines(
        [
            "pdserve stub: the session will take about 2.6 min (from defaults: *",
            "* s: *load *; forecast 2.6 min*",
        ]
    )
    (times,) = kept(house)
    assert times["ended"]
    assert times["runs"] == 1
    assert [start["topology"] for start in times["starts"]] == ["1p1d"]
    assert {"start", "warm-up", "client", "load", "stop", "overhead"} <= times["seconds"].keys()
    held = times["held"]
    assert (held["nodes"], held["gpus"], held["price_per_gpu_hour"]) == (1, 4, 2.5)
    start = r"# a session takes about \d+ s \(from 1 earlier session\): 1 start \d+ s, "
    said = start + r"1 run and all else \d+ s \(load \d+ s\); .+"
    line = planned(house, capsys)
    assert re.fullmatch(said, line)
    assert line.endswith(" EUR")


def on_a_terminal(house: House, *arguments: str) -> str:
    """What pytest writes to a terminal of 120 columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "pytest", "suites", "--system", "stub", *arguments]
    with subprocess.Popen(
        command,
        cwd=house.path,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ):
        os.close(theirs)
        with open(ours, "rb", buffering=0) as terminal:
            return read_all(terminal)


def read_all(terminal: Any) -> str:
    """What is written to a terminal until nobody has it open any more."""
    text = b""
    while True:
        try:
            read = terminal.read(65536)
        except OSError:  # EIO: the last one who had it has closed it
            read = b""
        if not read:
            return text.decode()
        text += read


@pytest.mark.slow
def test_a_person_sees_a_bar_that_is_gone_when_the_run_is_over(house: House) -> None:
    house.suites("sweep")
    house.faults(decode_0={"token_ms": 100})
    text = on_a_terminal(house, "--topology", "1p1d", "-k", "32-8")
    pictures = re.findall(rf"pdserve 1p1d {WORKLOAD} +(━.*?)(?=\r|\x1b\[2K|\n)", text)
    assert any(re.search("[48]/8 requests, ", ESCAPES.sub("", each)) for each in pictures)
    after = text.rpartition("requests")[2]
    assert "\x1b[2K" in after.partition("pdserve")[0]  # the line is erased
