"""Lines while a cell is measured: how far it is, as often as asked."""

from __future__ import annotations

import re

import pytest

from pytest_pdserve.backends import heartbeat
from tests.support.house import WORKLOAD
from tests.support.house import House


@pytest.fixture
def slow(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A cell of eight requests, four at a time, of 1.4 s each; a line after half a second."""
    house.suites("sweep")
    house.faults(decode_0={"token_ms": 200})
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.5)
    return house


def lines_of(house: House, *arguments: str) -> list[str]:
    result = house.run("--topology", "1p1d", "-k", "32-8", *arguments)
    result.assert_outcomes(passed=1)
    return [line for line in result.outlines if WORKLOAD in line and line.startswith("pdserve ")]


@pytest.mark.slow
def test_a_cell_says_how_many_requests_are_done(slow: House) -> None:
    lines = lines_of(slow)
    said = re.compile(rf"pdserve 1p1d: {WORKLOAD}: (\d) of 8 requests, \d s")
    counts = [int(match[1]) for line in lines if (match := said.fullmatch(line))]
    assert len(counts) > 2
    assert counts == sorted(counts)
    assert 4 in counts


LOST = """
import threading

from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import LaunchError

def test_lost(pdserve_cluster, pytestconfig):
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    write, said = terminal.write_line, threading.Event()

    def write_line(line, **markup):
        write(line, **markup)
        said.set()

    def diagnose():
        assert said.wait(20)
        raise AllocationError("node local0 is down")

    terminal.write_line = write_line
    pdserve_cluster.diagnose = diagnose
    raise LaunchError("decode[0] is gone")
"""


def test_nodes_that_are_asked_after_a_test_failed_are_waited_for_with_a_line(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.1)
    house.suites("smoke")
    (house.path / "suites" / "test_lost.py").write_text(LOST)
    result = house.run("-k", "lost")
    result.assert_outcomes(errors=1)
    assert "pdserve stub: checking the nodes, 0 s" in result.outlines
    assert "node local0 is down" in result.outlines


def test_a_cell_of_few_seconds_says_nothing(house: House) -> None:
    house.suites("sweep")
    assert lines_of(house) == []


def test_a_quiet_session_says_nothing_in_its_first_minute(house: House) -> None:
    house.suites("sweep")
    result = house.run("--topology", "1p1d", "-k", "32-8", "-q")
    assert "pdserve 1p1d: " not in result.stdout.str()
