"""The NIXL agents of a session: starts them on its nodes, sends them orders, and ends them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TypeVar

import msgspec

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import failure_text
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.nodes import spare_hosts
from pytest_pdserve.backends.passing import secret_env
from pytest_pdserve.clients import vllm_worker
from pytest_pdserve.plan.transfer import agent_command
from pytest_pdserve.plan.transfer import memory_of
from pytest_pdserve.plan.transfer import pair_rounds
from pytest_pdserve.plan.transfer import provider_of
from pytest_pdserve.plan.transfer import repeat_command
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.redaction import redact_file
from pytest_pdserve.serving import calm_nixl
from pytest_pdserve.transfer import agent
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import TransferError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import Memory
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBackend
from pytest_pdserve.values.transfer import TransferFigure
from pytest_pdserve.values.transfer import TransferShape

POLL_S = 0.02
_MIN_LIMIT_S = 30.0
"""Timeout of a transfer, to which the time of its bytes at :data:`_MIN_B_S` is added."""
_MIN_B_S = 10e6
"""Bytes per second, far below the rate of TCP between two nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReady:
    """The content of an agent's ``ready.json``."""

    error: str | None
    memory: Memory = "DRAM"
    address: int = 0
    device: int = 0
    metadata: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDone:
    """An agent's answer to an order."""

    error: str | None
    figures: tuple[TransferFigure, ...]


@dataclass(slots=True, kw_only=True)
class _Agent:
    """The process and state of an agent."""

    process: Process
    folder: Path
    ready: AgentReady | None = None
    orders: int = 0


Answer = TypeVar("Answer", AgentReady, AgentDone)


@dataclass(slots=True, kw_only=True)
class TransferAgents:
    """Agents of one NIXL backend, one per node, which read from each other."""

    system: System
    allocation: Allocation
    backend: TransferBackend
    """NIXL backend."""
    progress: Progress
    _agents: dict[str, _Agent] = field(default_factory=dict)

    @property
    def processes(self) -> Mapping[str, Process]:
        """Process of each agent, by node."""
        return {node: each.process for node, each in self._agents.items()}

    def measure(
        self, pairs: Sequence[Pair], shapes: Sequence[TransferShape], *, repeats: int
    ) -> tuple[PairFigures, ...]:
        """Measure every shape between every pair, in the order of *pairs*.

        :raises TransferError: if a transfer fails, is late, or brings wrong bytes.
        :raises LaunchError: if an agent ends.
        """
        found: dict[Pair, PairFigures] = {}
        rounds = pair_rounds(pairs, one_machine=self.system.cluster.shared_host)
        with Heartbeat(self.progress, "measuring transfers") as beat:
            for number, pairs_of_round in enumerate(rounds, 1):
                text = ", ".join(map(str, pairs_of_round[:3])) + ", …" * (len(pairs_of_round) > 3)
                beat.now(f"{self.backend} transfers, round {number} of {len(rounds)}: {text}")
                ordered = [self._order(pair, shapes, repeats) for pair in pairs_of_round]
                for pair, path in zip(pairs_of_round, ordered, strict=True):
                    found[pair] = self._wait_done(pair, path, shapes, repeats)
        return tuple(found[pair] for pair in pairs)

    def start(self, nodes: Sequence[str], size: int, folder: Path) -> None:
        """Start an agent on each of *nodes* with *size* bytes to read, and wait until all are up.

        :param folder: of the agents, on a file system that nodes share.
        :raises LaunchError: if one ends, e.g. because a library or a provider is missing.
        :raises NotReadyError: if one is not ready in time.
        """
        scripts = folder / "scripts"
        scripts.mkdir(parents=True, exist_ok=True)
        for module in (agent, calm_nixl, vllm_worker):
            shutil.copy(str(module.__file__), scripts)
        held = (*self.allocation.hosts, *spare_hosts(self.allocation))
        hosts = {host.name: host for host in held}
        folders = {node: folder / node for node in nodes}
        commands = []
        for node, own in folders.items():
            own.mkdir()
            config = {"name": node, "backend": self.backend, "bytes": size}
            write_json(own / "agent.json", {**config, "memory": memory_of(self.system)})
            commands.append(
                agent_command(
                    self.system,
                    hosts[node],
                    backend=self.backend,
                    script=str(scripts / "agent.py"),
                    folder=str(own),
                )
            )
        commands = [*self.allocation.containment.wrap(commands)]
        logs = [own / "agent.log" for own in folders.values()]
        secrets = secret_env(commands, "")
        started = self.allocation.start(commands, logs=logs, secrets=secrets)
        for (node, own), process in zip(folders.items(), started, strict=True):
            self._agents[node] = _Agent(process=process, folder=own)
        with Heartbeat(self.progress, f"starting {len(nodes)} NIXL agents ({self.backend})"):
            for node in nodes:
                self._wait_ready(node)

    def stop(self) -> None:
        """End all agents."""
        processes = self.processes.values()
        try:
            self.allocation.stop([*processes])
        finally:
            for process in processes:
                redact_file(process.log)

    def _wait_ready(self, node: str) -> None:
        own, limit_s = self._agents[node], self.system.limits.bench_start_s
        path = own.folder / "ready.json"
        if not self._wait(own, path, limit_s):
            raise NotReadyError(
                f"the NIXL agent of {node} was not ready within {limit_s:.0f} s "
                f"(limits.bench_start_s); {failure_text(own.process.log)}"
            )
        own.ready = _read(path, AgentReady) if path.exists() else None
        if own.ready is None or own.ready.error is not None:
            why = own.ready.error if own.ready else exit_text(own.process.poll() or 0)
            raise LaunchError(
                f"the NIXL agent of {node} cannot use backend {self.backend}"
                f"{self._provider_text(own)}: {why}; log {own.process.log}; check that the "
                "plugin, its libraries and its provider are installed where servers run"
            )

    def _order(self, pair: Pair, shapes: Sequence[TransferShape], repeats: int) -> Path:
        """Send an order to the reader of a pair; return the path of the answer."""
        reader = self._agents[pair.reader]
        reader.orders += 1
        order = {
            "source": str(self._agents[pair.source].folder / "ready.json"),
            "shapes": [asdict(shape) for shape in shapes],
            "repeats": repeats,
            "limit_s": max(map(_limit_s, shapes)),
        }
        write_json(reader.folder / f"{reader.orders}.order.json", order)
        return reader.folder / f"{reader.orders}.done.json"

    def _wait_done(
        self, pair: Pair, path: Path, shapes: Sequence[TransferShape], repeats: int
    ) -> PairFigures:
        reader = self._agents[pair.reader]
        limit_s = sum(_limit_s(shape) * (repeats + 1) for shape in shapes)
        arrived = self._wait(reader, path, limit_s)
        if not path.exists():
            code = reader.process.poll()
            why = f"did not answer within {limit_s:.0f} s" if not arrived else exit_text(code or 0)
            raise LaunchError(
                f"the NIXL agent of {pair.reader} {why} while {self._what(pair)}; "
                f"{failure_text(reader.process.log)}\n{self._repeat_text(pair)}"
            )
        done = _read(path, AgentDone)
        if done.error is not None:
            raise TransferError(
                f"{self._what(pair)} failed: {done.error}; log {reader.process.log}\n"
                f"{self._repeat_text(pair)}"
            )
        if len(done.figures) != len(shapes):
            raise TransferError(f"{path}: {len(done.figures)} figures, expected {len(shapes)}")
        ready = reader.ready
        assert ready is not None
        return PairFigures(
            pair=pair,
            backend=self.backend,
            provider=self._provider(reader),
            memory=ready.memory,
            versions=ready.versions,
            figures=done.figures,
        )

    def _what(self, pair: Pair) -> str:
        reader = self._agents[pair.reader]
        return f"{pair.reader} reading from {pair.source} by {self.backend}" + self._provider_text(
            reader
        )

    def _repeat_text(self, pair: Pair) -> str:
        return f"  repeat  {repeat_command(self.system, pair, self.backend)}"

    def _provider(self, own: _Agent) -> str:
        reported = own.ready.env if own.ready is not None else {}
        env = {name: value for name, value in reported.items() if value is not None}
        return provider_of(self.backend, {**dict(own.process.command.env), **env})

    def _provider_text(self, own: _Agent) -> str:
        return f" ({provider})" if (provider := self._provider(own)) else ""

    def _wait(self, own: _Agent, path: Path, limit_s: float) -> bool:
        """Wait until a file of an agent exists or the agent ends; return False after *limit_s*."""
        deadline = time.monotonic() + limit_s
        while path.name not in os.listdir(own.folder):
            if own.process.poll() is not None:
                return True
            self.allocation.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


def _limit_s(shape: TransferShape) -> float:
    return _MIN_LIMIT_S + shape.total_bytes / _MIN_B_S


def _read(path: Path, kind: type[Answer]) -> Answer:
    """Read a file that an agent has written.

    :raises TransferError: if it is invalid.
    """
    try:
        return msgspec.convert(load_json(path), kind)
    except msgspec.ValidationError as error:
        raise TransferError(f"{path} is not an answer of a NIXL agent: {error}") from error


@contextlib.contextmanager
def transfer_agents(
    allocation: Allocation,
    system: System,
    backend: TransferBackend,
    *,
    nodes: Sequence[str],
    shapes: Sequence[TransferShape],
    folder: Path,
    progress: Progress,
) -> Iterator[TransferAgents]:
    """Start an agent on each of *nodes*, with memory for *shapes*; end all when the block ends.

    :param folder: of the agents, in the run folder; it must not exist yet.
    :raises LaunchError: if one cannot be started.
    :raises NotReadyError: if one is not ready in time.
    """
    agents = TransferAgents(
        system=system, allocation=allocation, backend=backend, progress=progress
    )
    try:
        size = max(shape.total_bytes for shape in shapes)
        agents.start(nodes, size, folder)
        yield agents
    finally:
        agents.stop()
