"""One run of a benchmark client: started, watched, timed out, read."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Protocol

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.allocation import log_tells
from pytest_pdserve.backends.hosts import versions
from pytest_pdserve.backends.images import versions_of
from pytest_pdserve.backends.passing import unwritten_values
from pytest_pdserve.plan.bench import bench_command
from pytest_pdserve.plan.command import Command
from pytest_pdserve.results.redaction import redact_file
from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.record import NodeLoad
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import CLIENTS_OF_VLLM
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a client is asked for."""

    workload: Workload
    """Load."""
    system: System
    """System with the model's name as the servers know it."""
    seed: int
    """Of the prompts."""
    base_url: str
    """Base URL that is asked."""
    result: Path
    """File that the client writes; its log lies beside it."""

    def command(self, kind: ClientKind, node: str) -> Command:
        """Return the command of a client of *kind*."""
        return bench_command(
            self.workload,
            self.system,
            kind,
            node=node,
            base_url=self.base_url,
            seed=self.seed,
            result=self.result,
        )

    @property
    def log(self) -> Path:
        """Output of the client."""
        return self.result.with_suffix(".log")


def streams_of(workload: Workload) -> int:
    """Return how many requests of a load are in flight at once, at most."""
    load = workload.known()
    return min(load.num_prompts, load.max_concurrency or load.num_prompts)


def seed_of(
    workload: Workload, repeat: int, session: SessionRef, topology: Topology, *, shares: bool
) -> int:
    """Return the seed of a run's prompts.

    :param shares: whether topologies share instances, whose prefix caches then know the prompts of
        the others: each topology is sent its own.
    """
    return workload.seed(repeat, f"{session.id}/{topology.id}" if shares else session.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is looked at while a client runs."""

    limit_s: float
    """Seconds that it may take."""
    check_servers: Callable[[], None]
    """Raises when a server has ended."""
    hung: Callable[[str, str], ClientError]
    """Makes the error of a client that takes too long, of that and what its log tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRun:
    """What one run of a client left behind."""

    command: Command
    """What ran, container included."""
    result: BenchResult
    """Its result file."""
    log: Path
    """Its output."""
    cpu: float | None
    """Cores that it used while it measured."""
    node_load: NodeLoad | None
    """How busy its node was meanwhile."""
    wall_s: float
    """Seconds from the order to the end, imports of a command included."""


class BenchClient(Protocol):
    """Sends loads and measures them; one for all cells of a session."""

    @property
    def kind(self) -> ClientKind:
        """What it is, as in ``[bench] client``."""

    @property
    def api_key(self) -> str:
        """The session's API key."""

    @property
    def version(self) -> str | None:
        """Version of its program; None if it is not known, or not yet."""

    def prepare(self, loads: Sequence[Load]) -> None:
        """Have prompts made beforehand, where the client can; nothing is waited for."""

    def check_usable(self) -> None:
        """Make sure that the client can run, as far as that is known; nothing is waited for.

        :raises ClientUnusableError: if no run of it can succeed.
        """

    def run(self, load: Load, watch: Watch) -> ClientRun:
        """Measure one load, watching the servers meanwhile.

        :raises ClientError: if the client fails, takes too long, or leaves no result.
        :raises ClientUnusableError: if no run of it can succeed.
        """

    def close(self) -> None:
        """End what still runs of it."""


@dataclass(slots=True, kw_only=True)
class CommandClient:
    """A command for each run: ``vllm bench serve``, or that of the client ``precise``."""

    kind: ClientKind
    """What it is."""
    allocation: Allocation
    """Nodes of the session."""
    api_key: str = field(repr=False)
    """The session's API key."""
    version: str | None = None
    """Version, where it is known beforehand."""

    def prepare(self, loads: Sequence[Load]) -> None:
        """Nothing: each command makes its own prompts."""

    def check_usable(self) -> None:
        """Nothing: a command is started for each run."""

    def run(self, load: Load, watch: Watch) -> ClientRun:
        """Run the command to its end."""
        if self.version is None and self.kind in CLIENTS_OF_VLLM and load.system.bench.python:
            self.version = self._ask_version(load, load.system.bench.python)
        command = load.command(self.kind, self.allocation.client_node)
        if self.kind in CLIENTS_OF_VLLM:
            (command,) = self.allocation.containment.wrap([command])
        began = time.monotonic()
        secrets = unwritten_values([command], self.api_key)
        (process,) = self.allocation.start([command], logs=[load.log], secrets=secrets)
        try:
            used = wait_for(process, process.poll, watch, name=command.name, log=load.log)
        finally:
            try:
                self.allocation.stop([process])
            finally:
                redact_files(load)
        code = process.poll()
        if code:
            watch.check_servers()
            raise ClientError(f"{command.name} {exit_text(code)}; {log_tells(load.log)}")
        return finished(load, process.command, process, used, began=began)

    def _ask_version(self, load: Load, python: str) -> str | None:
        """Return the version of vLLM beside *python*; None if it cannot tell."""
        script = load.result.with_name("client-versions.py")
        shutil.copy(str(versions.__file__), script)
        try:
            found = versions_of(
                self.allocation.containment,
                self.allocation.client_node,
                script,
                python,
                start=self.allocation.start,
                stop=self.allocation.stop,
                progress=lambda _: None,
            )
        except LaunchError:  # the command fails too, and its log says why
            return None
        return found.get("vllm")

    def close(self) -> None:
        """Nothing: each command has ended."""


def redact_files(load: Load) -> None:
    """Take the secrets out of the files that a client wrote."""
    for path in (load.log, load.result):
        redact_file(path)


def wait_for(
    process: Process, done: Callable[[], object], watch: Watch, *, name: str, log: Path
) -> Sequence[tuple[float, float]]:
    """Wait until a client is *done*, that is, returns something but None; return its use of CPUs.

    :raises ClientError: if that takes too long.
    """
    deadline = time.monotonic() + watch.limit_s
    used: Sequence[tuple[float, float]] = ()
    while done() is None:
        used = process.cpu_samples()
        watch.check_servers()
        if time.monotonic() > deadline:
            raise watch.hung(
                f"{name} did not end within {watch.limit_s:.0f} s, the time for the work "
                "asked (limits.slowest_tok_s)",
                log_tells(log),
            )
        time.sleep(POLL_S)
    return used


def finished(
    load: Load,
    command: Command,
    process: Process,
    used: Sequence[tuple[float, float]],
    *,
    began: float,
) -> ClientRun:
    """Return what a run that ended well left.

    :param command: what ran.
    :param process: process that measured.
    :param used: its use of the CPU.
    :param began: monotonic time of the order.
    :raises ClientError: if there is no result.
    """
    wall_s = time.monotonic() - began
    if not load.result.exists():
        raise ClientError(
            f"{command.name} ended well but wrote no {load.result}; {load.log} ends:\n"
            f"{log_tail(load.log)}"
        )
    read = load_bench_result(load.result)
    return ClientRun(
        command=command,
        result=read,
        log=load.log,
        cpu=cpu_share(used, read.duration_s),
        node_load=process.node_load(),
        wall_s=wall_s,
    )


def cpu_share(used: Sequence[tuple[float, float]], duration_s: float) -> float | None:
    """Cores used over the last *duration_s* of a client's run, when it measured.

    :param used: time and CPU seconds so far, in order.
    :returns: None without two samples that far apart.
    """
    if len(used) < 2 or duration_s <= 0:
        return None
    end, total = used[-1]
    earlier = [(at, cpu) for at, cpu in used if end - at >= duration_s]
    at, cpu = earlier[-1] if earlier else used[0]
    return (total - cpu) / (end - at) if end - at > POLL_S else None
