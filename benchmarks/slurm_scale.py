"""How the cost of nodes grows: acquire, launch, ready and teardown on Slurms of one host.

For each number of nodes it starts a Slurm of that many slurmd here, has the library acquire them
and stand ``route<N>`` up with stub engines (one per node), and times the phases. Beside it, in the
same allocation, what a launcher script does: one ``srun`` per node in turn, against one for all.
Everything shares this machine's cores, stub engines included, so times grow with nodes for that
reason alone. Usage: ``python benchmarks/slurm_scale.py [REPEATS] [NODES …]``; defaults 3, 4 16 64.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.slurm.planning import step_argv
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.serving.clients import bench_client
from pytest_pdserve.serving.stand_up import stand_up
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from tests.support.house import CONFIG
from tests.support.house import STUBS
from tests.support.house import write_program

ROOT = Path(__file__).parents[1]
ONEHOST = ROOT / "docker" / "slurm" / "onehost.py"
PHASES = ("acquire", "launch", "ready", "warm", "stop", "release")


def main(repeats: int, sizes: list[int]) -> None:
    """Print one line per number of nodes: medians, and the range of the sum."""
    sys.stdout.write(f"stub engines, {os.cpu_count()} cores, median of {repeats} runs, seconds\n")
    names = "".join(f"{name:>9}" for name in PHASES)
    sys.stdout.write(f"nodes{names}      all (range)   1 srun: all nodes, in turn (ratio)\n")
    for nodes in sizes:
        with tempfile.TemporaryDirectory(prefix="pdb", dir="/tmp") as folder:
            with one_host(Path(folder) / "s", nodes):
                runs = [measure(Path(folder), nodes, number) for number in range(repeats)]
            sys.stdout.write(line(nodes, runs) + "\n")
            sys.stdout.flush()


def line(nodes: int, runs: list[dict[str, float]]) -> str:
    """Medians of *runs*."""
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    sums = [sum(run[name] for name in PHASES) for run in runs]
    phases = "".join(f"{middle[name]:9.2f}" for name in PHASES)
    ratio = statistics.median(run["in turn"] / run["at once"] for run in runs)
    return (
        f"{nodes:5}{phases} {statistics.median(sums):8.2f} ({min(sums):.2f}-{max(sums):.2f})"
        f"   {middle['at once']:.2f}, {middle['in turn']:.2f} ({ratio:.1f})"
    )


@contextmanager
def one_host(folder: Path, nodes: int) -> Iterator[None]:
    """A Slurm of *nodes* nodes, which ``SLURM_CONF`` names."""
    control = [sys.executable, str(ONEHOST)]
    start = [*control, "start", "--dir", str(folder), "--nodes", str(nodes)]
    said = subprocess.run(start, capture_output=True, text=True, check=True).stdout
    os.environ["SLURM_CONF"] = said.strip().partition("=")[2]
    try:
        yield
    finally:
        subprocess.run([*control, "stop", "--dir", str(folder)], check=True)
        del os.environ["SLURM_CONF"]


def measure(folder: Path, nodes: int, number: int) -> dict[str, float]:
    """Seconds of each phase of one session."""
    system = stub_system(folder, nodes)
    run = folder / f"run{number}"
    took: dict[str, float] = defaultdict(float)
    clock = lap()
    request = Request(folder=run / "slurm", progress=lambda _: None)
    with backend_of(system).acquire(system, request) as allocation:
        took["acquire"] = clock()
        took |= compare_steps(allocation._job, [h.name for h in allocation.hosts])  # type: ignore[attr-defined]  # noqa: SLF001
        start = allocation.start
        launches = []

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.monotonic()
            started = start(*arguments, **named)
            launches.append(time.monotonic() - began)
            return started

        allocation.start = timed  # type: ignore[method-assign]
        clock()
        topology = Topology.parse(f"route{nodes}")
        with (
            bench_client(system, allocation, run / "client", measuring=False) as bench,
            stand_up(
                allocation,
                topology,
                system,
                bench=bench,
                logs=run / "logs",
                progress=lambda _: None,
            ) as up,
        ):
            took["launch"], took["ready"] = sum(launches), up.timings_s["ready"]
            took["warm"] = clock() - took["launch"] - took["ready"]
        took["stop"] = clock()
    took["release"] = clock()
    return took


def compare_steps(job: str, nodes: list[str]) -> dict[str, float]:
    """A step that does nothing: on all nodes at once, and on one node after the other."""
    clock = lap()
    step(job, nodes)
    at_once = clock()
    for node in nodes:
        step(job, [node])
    return {"at once": at_once, "in turn": clock()}


def step(job: str, nodes: list[str]) -> None:
    """Run nothing on *nodes*, in one step."""
    argv = step_argv(job, nodes, ["true"], name="nothing")
    subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)


def lap() -> Callable[[], float]:
    """A clock that tells seconds since it was last asked."""
    last = time.monotonic()

    def ask() -> float:
        nonlocal last
        now = time.monotonic()
        last, passed = now, now - last
        return passed

    return ask


def stub_system(folder: Path, nodes: int) -> System:
    """The one-host system with *nodes* nodes, and stub engines in place of real ones."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(CONFIG))
    for name in ("vllm", "router"):
        write_program(folder, STUBS / f"{name}_stub.py")
    system = load_system("onehost-slurm", SHIPPED)
    return replace(
        system,
        cluster=replace(system.cluster, nodes=nodes),
        model=replace(system.model, path=str(model), serve_args=()),
        programs=replace(
            system.programs, vllm=str(folder / "vllm_stub"), router=str(folder / "router_stub")
        ),
        limits=replace(system.limits, stop_s=5.0),
    )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(given[0] if given else 3, given[1:] or [4, 16, 64])
