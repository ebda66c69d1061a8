"""Ports of the backend ``local``: claimed for one process, and given back when it has ended."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.command import Command
from pytest_pdserve.results.folders import SHIPPED


@pytest.fixture
def allocation(tmp_path: Path) -> Iterator[LocalAllocation]:
    system = load_system("local-cpu", SHIPPED)
    system = replace(system, cluster=replace(system.cluster, nodes=1))
    allocation = LocalAllocation(system, folder=tmp_path / "local", progress=lambda _: None)
    try:
        yield allocation
    finally:
        allocation.release()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def test_ports_of_an_ended_process_can_be_claimed_again(
    allocation: LocalAllocation, tmp_path: Path
) -> None:
    ended, kept = free_port(), free_port()
    assert allocation.claim("local0", ended)
    assert allocation.claim("local0", kept)
    assert not allocation.claim("local0", ended)
    command = Command(
        name="sleep", node="local0", argv=(sys.executable, "-c", "input()"), ports=(ended,)
    )
    processes = allocation.start([command], logs=[tmp_path / "sleep.log"], secrets={})
    assert not allocation.claim("local0", ended)
    allocation.stop(processes)
    assert allocation.claim("local0", ended)
    assert not allocation.claim("local0", kept)
