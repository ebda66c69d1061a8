"""Real NIXL between slots of this machine: bytes arrive, and a node that is slowed is named."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.judge.transfer import below_floor
from pytest_pdserve.judge.transfer import slow_nodes
from pytest_pdserve.plan.transfer import all_pairs
from pytest_pdserve.plan.transfer import shape_of
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import make_model
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.transfer.agents import transfer_agents
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import TransferCase

pytestmark = pytest.mark.vllm

STOPPED_S, RUNNING_S = 0.25, 0.008
"""16 MiB take longer than the process runs in one go, so that each transfer waits for it."""
FLOOR_GB_S = 0.07
"""16 MiB in 240 ms; TCP does it in 15 here, and in 70 on a busy machine."""


@contextlib.contextmanager
def slowed(pid: int) -> Iterator[None]:
    """Have a process stand still most of the time."""
    over = threading.Event()

    def take_turns() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(STOPPED_S)
            os.kill(pid, signal.SIGCONT)
            over.wait(RUNNING_S)

    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_bytes_arrive_and_a_slowed_node_is_named(tmp_path: Path) -> None:
    system = with_model_path(load_system("local-cpu", SHIPPED))
    make_model(system)
    cases = TransferCase(prompt_tokens=32, in_flight=4), TransferCase(mib=16)
    prompt, whole = (shape_of(case, system, load_kv_shape(system)) for case in cases)
    asked = Request(folder=tmp_path / "run" / "local", progress=print)
    with backend_of(system).acquire(system, asked) as allocation:
        nodes = [host.name for host in allocation.hosts][:3]
        slow_ends = Pair(reader=nodes[0], source=nodes[2]), Pair(reader=nodes[2], source=nodes[1])
        pairs = (*all_pairs(nodes[:2]), *slow_ends)
        with transfer_agents(
            allocation,
            system,
            "UCX",
            nodes=nodes,
            shapes=(prompt, whole),
            folder=tmp_path / "run" / "agents",
            progress=print,
        ) as agents:
            (found,) = agents.measure(all_pairs(nodes)[:1], (prompt,), repeats=3)
            assert [figure.shape for figure in found.figures] == [prompt]
            assert (found.provider, found.memory) == ("UCX_TLS=tcp", "DRAM")
            pid = agents.processes[nodes[2]].pid
            assert pid is not None
            with slowed(pid):
                measured = agents.measure(pairs, (whole,), repeats=3)
    slow = below_floor(measured, FLOOR_GB_S, source="the test")
    assert slow_nodes({each.pair: each.pair in slow for each in measured}) == (nodes[2],)
