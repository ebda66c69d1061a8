"""Holds ``pdserve transfer`` against NIXL driven by a few lines of its own, on this machine.

``python benchmarks/transfer/agree.py [UCX] [--rounds N]``: in each round the product's agents and
the independent pair read 16 MiB in one piece, in turn, so that both meet the same machine. Both
pairs are two processes with the same environment; the medians are held against each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.transfer import all_pairs
from pytest_pdserve.plan.transfer import shape_of
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.transfer.agents import transfer_agents
from pytest_pdserve.values.transfer import TransferCase

ROOT = Path(__file__).resolve().parents[2]
MIB, REPEATS = 16, 9
ALONE = """
import json, sys, time
import numpy as np
from nixl._api import nixl_agent, nixl_agent_config

role, backend, size, repeats, folder = sys.argv[1:]
size, repeats = int(size), int(repeats)
from pathlib import Path
folder = Path(folder)
import calm_nixl
calm_nixl.register()
agent = nixl_agent(role, nixl_agent_config(backends=[backend]))
memory = np.zeros(size, np.uint8)
if role == "source":
    memory[:] = np.arange(size, dtype=np.uint32).astype(np.uint8)
agent.register_memory([(memory.ctypes.data, size, 0, "")], "DRAM", backends=[backend])
if role == "source":
    (folder / "part").write_bytes(
        memory.ctypes.data.to_bytes(8, "little") + agent.get_agent_metadata())
    (folder / "part").rename(folder / "source")
    while not (folder / "done").exists():
        time.sleep(0.005)
    sys.exit()
while not (folder / "source").exists():
    time.sleep(0.005)
said = (folder / "source").read_bytes()
name = agent.add_remote_agent(said[8:])
here = agent.get_xfer_descs([(memory.ctypes.data, size, 0)], "DRAM")
there = agent.get_xfer_descs([(int.from_bytes(said[:8], "little"), size, 0)], "DRAM")
expected = np.arange(size, dtype=np.uint32).astype(np.uint8)
times = []
for _ in range(repeats + 1):
    memory[:] = 0
    handle = agent.initialize_xfer("READ", here, there, name, b"")
    began = time.perf_counter()
    state = agent.transfer(handle)
    while state not in ("DONE", "ERR"):
        state = agent.check_xfer_state(handle)
    times.append((time.perf_counter() - began) * 1e3)
    assert state == "DONE" and (memory == expected).all()
(folder / "done").touch()
print(json.dumps(times[1:]))
"""
"""NIXL by itself: one descriptor, no permutation, no orders; written apart from the product."""


def independent_ms(backend: str, env: dict[str, str]) -> float:
    """Return the median of one pair of processes that use NIXL directly, ms."""
    with tempfile.TemporaryDirectory(prefix="pdserve-agree-") as name:
        paths = os.pathsep.join([str(ROOT / "pytest_pdserve" / "serving")])
        words = [backend, str(MIB * 2**20), str(REPEATS), name]
        made = {**os.environ, **env, "PYTHONPATH": paths}
        command = [sys.executable, "-c", ALONE]
        with (
            subprocess.Popen([*command, "source", *words], env=made, stdout=subprocess.DEVNULL),
            subprocess.Popen(
                [*command, "reader", *words], env=made, stdout=subprocess.PIPE, text=True
            ) as reader,
        ):
            said, _ = reader.communicate(timeout=120)
        return statistics.median(json.loads(said.strip().splitlines()[-1]))


def main() -> None:
    """Measure in turn and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", nargs="?", default="UCX")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    system = with_model_path(load_system("local-cpu", [ROOT / "baselines"]))
    shape = shape_of(TransferCase(mib=MIB), system, None)
    env = {**system.env, **system.pd_env}
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="pdserve-agree-") as name:
        asked = Request(folder=Path(name) / "run" / "local", progress=lambda _: None)
        asked.folder.parent.mkdir()
        with backend_of(system).acquire(system, asked) as allocation:
            nodes = [host.name for host in allocation.hosts][:2]
            for number in range(options.rounds):
                with transfer_agents(
                    allocation,
                    system,
                    options.backend,
                    nodes=nodes,
                    shapes=[shape],
                    folder=Path(name) / "run" / str(number),
                    progress=lambda _: None,
                ) as agents:
                    (found,) = agents.measure(all_pairs(nodes)[:1], [shape], repeats=REPEATS)
                ours.append(found.figures[0].median_ms)
                theirs.append(independent_ms(options.backend, env))
                sys.stdout.write(
                    f"round {number + 1}: pdserve {ours[-1]:.2f} ms, NIXL {theirs[-1]:.2f} ms\n"
                )
    a, b = statistics.median(ours), statistics.median(theirs)
    sys.stdout.write(
        f"{MIB} MiB by {options.backend}: pdserve {a:.2f} ms ({min(ours):.2f} to {max(ours):.2f}), "
        f"NIXL alone {b:.2f} ms ({min(theirs):.2f} to {max(theirs):.2f}): {a / b - 1:+.1%}\n"
    )


if __name__ == "__main__":
    main()
