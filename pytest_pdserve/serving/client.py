"""Run a benchmark client: start it, watch it, stop it at its time limit, read its result."""

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
from pytest_pdserve.backends.allocation import failure_text
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.hosts import versions
from pytest_pdserve.backends.images import versions_of
from pytest_pdserve.backends.passing import secret_env
from pytest_pdserve.plan.bench import bench_command
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
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
    """A load for a client to send, and where to write the result."""

    workload: Workload
    system: System
    """System, with the model's name as the servers know it."""
    seed: int
    """Seed of the prompts."""
    base_url: str
    """Base URL of the endpoint."""
    result: Path
    """File that the client writes; its log is in the same folder."""

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
        """File of the client's output."""
        return self.result.with_suffix(".log")


def max_in_flight(workload: Workload) -> int:
    """Return the largest number of requests of a load that are in flight at once."""
    load = workload.known()
    return min(load.num_prompts, load.max_concurrency or load.num_prompts)


def prompt_seed(
    workload: Workload, repeat: int, session: SessionRef, topology: Topology, *, shares: bool
) -> int:
    """Return the seed of a run's prompts.

    :param shares: whether topologies share instances, whose prefix caches then contain the prompts
        of the others: each topology gets prompts of its own.
    """
    return workload.seed(repeat, f"{session.id}/{topology.id}" if shares else session.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Time limit of a running client, and the checks made meanwhile."""

    limit_s: float
    check_servers: Callable[[], None]
    """Raises if a server has ended."""
    timeout_error: Callable[[str, str], ClientError]
    """Returns the error for a client that exceeds its limit, from a sentence about it and the end
    of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRun:
    """Result of one run of a client."""

    command: Command
    """Command that ran, with its container."""
    result: BenchResult
    log: Path
    """File of the client's output."""
    cpu: float | None
    """Cores that it used on average while it measured; None if unknown."""
    node_load: NodeLoad | None
    """Load of its node during the run; None if unknown."""
    wall_s: float
    """Seconds from the start of the run to its end; for a command with Python's imports."""


class BenchClient(Protocol):
    """Benchmark client of a session: sends the loads of all cells and measures them."""

    @property
    def kind(self) -> ClientKind:
        """Kind, as in ``[bench] client``."""

    @property
    def api_key(self) -> str:
        """The session's API key."""

    @property
    def version(self) -> str | None:
        """Version of its program; None if it is not known (yet)."""

    def prepare(self, loads: Sequence[Load]) -> None:
        """Start generating the prompts of *loads*, if the client can; return at once."""

    def check_usable(self) -> None:
        """Check that the client can run, as far as that is known yet; return at once.

        :raises ClientUnusableError: if no run of it can succeed.
        """

    def run(self, load: Load, watch: Watch) -> ClientRun:
        """Measure one load, watching the servers meanwhile.

        :raises ClientError: if the client fails, takes too long, or leaves no result.
        :raises ClientUnusableError: if no run of it can succeed.
        """

    def close(self) -> None:
        """Stop its processes."""


@dataclass(slots=True, kw_only=True)
class CommandClient:
    """Client that starts a command for each run: ``vllm bench serve`` or the client ``precise``."""

    kind: ClientKind
    allocation: Allocation
    """Nodes of the session."""
    api_key: str = field(repr=False)
    """The session's API key."""
    version: str | None = None
    """Version, if it is known beforehand."""
    containment: Containment = field(init=False)
    """Wraps its commands: it stays in the image in which the session began."""

    def __post_init__(self) -> None:
        """Keep the present image."""
        self.containment = self.allocation.containment

    def prepare(self, loads: Sequence[Load]) -> None:
        """Do nothing: each command generates its own prompts."""

    def check_usable(self) -> None:
        """Do nothing: a command is started for each run."""

    def run(self, load: Load, watch: Watch) -> ClientRun:
        """Run the command and return its result; see :meth:`BenchClient.run`."""
        if self.version is None and self.kind in CLIENTS_OF_VLLM and load.system.bench.python:
            self.version = self._ask_version(load, load.system.bench.python, watch)
        command = load.command(self.kind, self.allocation.client_node)
        if self.kind in CLIENTS_OF_VLLM:
            (command,) = self.containment.wrap([command])
        began = time.monotonic()
        secrets = secret_env([command], self.api_key)
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
            raise ClientError(f"{command.name} {exit_text(code)}; {failure_text(load.log)}")
        return finished_run(load, process.command, process, used, began=began)

    def _ask_version(self, load: Load, python: str, watch: Watch) -> str | None:
        """Return the version of vLLM in the environment of *python*; None if it is unknown.

        :raises LaunchError: if a server ends meanwhile.
        """
        script = load.result.with_name("client-versions.py")
        script.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(versions.__file__), script)
        try:
            versions_found = versions_of(
                self.containment,
                self.allocation.client_node,
                script,
                python,
                start=self.allocation.start,
                stop=self.allocation.stop,
                check=watch.check_servers,
                progress=lambda _: None,
            )
        except LaunchError:  # of a server, or of the script: then the command's log has the cause
            watch.check_servers()
            return None
        return versions_found.get("vllm")

    def close(self) -> None:
        """Do nothing: each command has ended."""


def redact_files(load: Load) -> None:
    """Remove secrets from the files that a client wrote."""
    for path in (load.log, load.result):
        redact_file(path)


def wait_for(
    process: Process, done: Callable[[], object], watch: Watch, *, name: str, log: Path
) -> Sequence[tuple[float, float]]:
    """Wait until *done* returns something other than None; return the CPU samples of *process*.

    :raises ClientError: if that takes too long.
    """
    deadline = time.monotonic() + watch.limit_s
    used: Sequence[tuple[float, float]] = ()
    while done() is None:
        used = process.cpu_samples()
        watch.check_servers()
        if time.monotonic() > deadline:
            raise watch.timeout_error(
                f"{name} did not end within {watch.limit_s:.0f} s, the limit for this load "
                "(limits.slowest_tok_s)",
                failure_text(log),
            )
        time.sleep(POLL_S)
    return used


def finished_run(
    load: Load,
    command: Command,
    process: Process,
    used: Sequence[tuple[float, float]],
    *,
    began: float,
) -> ClientRun:
    """Return the result of a run whose client exited with code 0.

    :param command: command that ran.
    :param process: process that measured.
    :param used: its CPU samples.
    :param began: monotonic time of the start of the run.
    :raises ClientError: if there is no result file.
    """
    wall_s = time.monotonic() - began
    if not load.result.exists():
        raise ClientError(
            f"{command.name} exited with code 0 but wrote no {load.result}; {load.log} ends:\n"
            f"{log_tail(load.log)}"
        )
    result = load_bench_result(load.result)
    return ClientRun(
        command=command,
        result=result,
        log=load.log,
        cpu=cores_used(used, result.duration_s),
        node_load=process.node_load(),
        wall_s=wall_s,
    )


def cores_used(used: Sequence[tuple[float, float]], duration_s: float) -> float | None:
    """Return the cores used over the last *duration_s* of a client's run, when it measured.

    :param used: samples of time and CPU seconds so far, in order.
    :returns: None without two samples that are more than :data:`POLL_S` apart.
    """
    if len(used) < 2 or duration_s <= 0:
        return None
    end, total = used[-1]
    earlier = [(at, cpu) for at, cpu in used if end - at >= duration_s]
    at, cpu = earlier[-1] if earlier else used[0]
    return (total - cpu) / (end - at) if end - at > POLL_S else None
