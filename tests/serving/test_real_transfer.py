"""Real NIXL between slots of this machine: bytes arrive, and a node that is slowed is named."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.backends.local.allocation import LocalProcess
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.judge.transfer import below_floor
from pytest_pdserve.judge.transfer import slow_nodes
from pytest_pdserve.plan.transfer import all_pairs
from pytest_pdserve.plan.transfer import shape_of
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import make_model
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.transfer.agents import transfer_agents
from pytest_pdserve.transfer.preflight import Preflight
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import TransferCase
from pytest_pdserve.values.transfer import TransferSpec

pytestmark = pytest.mark.vllm

STOPPED_S, RUNNING_S = 0.25, 0.008
"""16 MiB take longer than the process runs in one go, so that each transfer waits for it."""
LONG_STOPPED_S = 0.5
LOW_FLOOR_GB_S = 0.03
"""16 MiB in 560 ms; a process that stands still so long needs two such waits, a second."""
FLOOR_GB_S = 0.07
"""16 MiB in 240 ms; TCP does it in 15 here, and in 70 on a busy machine."""


@contextlib.contextmanager
def slowed(
    pid: int, stopped_s: float = STOPPED_S, begins: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Have a process stand still most of the time, once *begins* is true."""
    over = threading.Event()

    def take_turns() -> None:
        while not begins() and not over.wait(0.05):
            pass
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(stopped_s)
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


class SlowedAllocation(LocalAllocation):
    """Slots of this machine; the agents of ``local1`` are slowed once they are ready."""

    slowing: contextlib.ExitStack

    def start(self, *arguments: Any, **keywords: Any) -> tuple[LocalProcess, ...]:
        started = super().start(*arguments, **keywords)
        self.slowing = contextlib.ExitStack()
        for process in started:
            if process.command.node == "local1":
                ready = Path(process.command.argv[-1]) / "ready.json"
                self.slowing.enter_context(slowed(process.pid, LONG_STOPPED_S, ready.exists))
        return started

    def stop(self, processes: Sequence[Process]) -> None:
        self.slowing.close()
        super().stop(processes)


@pytest.mark.slow
def test_a_slowed_node_is_replaced_by_the_spare_one(tmp_path: Path) -> None:
    system = with_model_path(load_system("local-cpu", SHIPPED))
    system = replace(
        system,
        cluster=replace(system.cluster, nodes=2, spare_nodes=1),
        transfer=TransferSpec(preflight=True, floor_gb_s=LOW_FLOOR_GB_S, prompt_lens=(1024,)),
    )
    allocation = SlowedAllocation(system, folder=tmp_path / "run" / "local")
    preflight = Preflight(
        allocation=allocation,
        system=system,
        topologies=(Topology.parse("1p1d"),),
        rotation=0,
        baseline=None,
        checked={},
        store=RunStore(folder=tmp_path / "run", session=SessionRef(id="s")),
        fingerprint="f",
        progress=print,
    )
    try:
        preflight.check()
    finally:
        allocation.release()
    assert [host.name for host in allocation.hosts] == ["local0", "local2"]
    assert [*allocation.excluded] == ["local1"]
    assert allocation.excluded["local1"].startswith("slow in all of its 2 pairs that were ")
    preflight.require(Topology.parse("1p1d"))
