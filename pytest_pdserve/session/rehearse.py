"""Rehearse an upgrade: start each combination of two stacks, send requests, and stop it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.stacks import check_versions
from pytest_pdserve.backends.stacks import running_versions
from pytest_pdserve.backends.stacks.images import ProvidedImage
from pytest_pdserve.backends.stacks.images import provide_images
from pytest_pdserve.backends.stacks.running import Running
from pytest_pdserve.backends.stacks.running import parts_of
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.greedy_texts import GreedyTexts
from pytest_pdserve.serving.greedy_texts import ask_gap
from pytest_pdserve.serving.model import has_random_weights
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.smoke import TOKENS
from pytest_pdserve.serving.smoke import long_prompts
from pytest_pdserve.serving.stand_up import Launcher
from pytest_pdserve.serving.stand_up import complete_deployment
from pytest_pdserve.serving.stand_up import servers_of
from pytest_pdserve.serving.stand_up import starting
from pytest_pdserve.session.rehearse_outcome import Judged
from pytest_pdserve.session.rehearse_outcome import judge_error
from pytest_pdserve.session.rehearse_outcome import judge_texts
from pytest_pdserve.session.rehearse_outcome import sides_agree
from pytest_pdserve.session.rehearse_systems import Sides
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.errors import PortTakenError
from pytest_pdserve.values.rehearsal import Combination
from pytest_pdserve.values.rehearsal import Rehearsed
from pytest_pdserve.values.rehearsal import Side
from pytest_pdserve.values.roles import DECODE
from pytest_pdserve.values.roles import PREFILL
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

if TYPE_CHECKING:
    from pytest_pdserve.plan.launch import Launch
    from pytest_pdserve.serving.deployment import Deployment

TOPOLOGY = "1p1d"
"""Topology of each combination: the smallest that moves a KV cache."""
_ROUTER = "router"
Versions = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearser:
    """Starts and tests combinations on nodes that are already acquired."""

    allocation: Allocation
    """Nodes."""
    sides: Sides
    """Both stacks."""
    bench: BenchClient
    """Benchmark client, needed only for the session's API key."""
    folder: Path
    """Folder of the rehearsal, with a folder for each combination."""
    progress: Progress
    """Receives progress messages."""
    images: Mapping[str, ProvidedImage] = field(default_factory=dict)
    """Images that stacks name, by that name."""
    clock: Callable[[], float] = time.monotonic

    def rehearse(self, combination: Combination) -> Rehearsed:
        """Start *combination*, send requests, stop it, and return the outcome.

        :raises InvalidRunError: if a server has loaded other versions than its stack's.
        :raises AllocationError: if a node is lost.
        :raises LaunchError: if versions cannot be read on a node.
        """
        return _Attempt(self, combination).run()


class _Attempt:
    """One combination that is being tested, with the result so far."""

    def __init__(self, rehearser: Rehearser, combination: Combination) -> None:
        self._rehearser = rehearser
        self._combination = combination
        self._system = rehearser.sides.of(combination)
        self._folder = rehearser.folder / combination.id
        self._versions: dict[str, Mapping[str, str]] = {}
        self._result = Rehearsed(combination=combination, outcome="does not start", why="")

    def run(self) -> Rehearsed:
        """Return the result of the combination."""
        rehearser, logs = self._rehearser, self._folder / "logs"
        with starting(
            rehearser.allocation,
            self._system,
            rehearser.bench,
            logs=logs,
            progress=rehearser.progress,
        ) as launcher:
            began = rehearser.clock()
            try:
                plan, servers = self._start(launcher)
            except PortTakenError:
                raise
            except (LaunchError, NotReadyError) as error:
                rehearser.allocation.check(fresh=True)  # a lost node is not the combination's fault
                return self._done(Judged(outcome="does not start", why=_one_line(error)))
            ready = rehearser.clock()
            self._result = replace(self._result, ready_s=ready - began)
            self._verify(servers)
            judged = self._judge(launcher, plan, servers)
            self._result = replace(self._result, after_s=rehearser.clock() - ready)
            return self._done(judged)

    @property
    def _sides(self) -> dict[str, Side]:
        """The side of each server, by its role."""
        combination = self._combination
        return {
            PREFILL: combination.prefill,
            DECODE: combination.decode,
            _ROUTER: combination.router,
        }

    def _image(self, role: str) -> ProvidedImage | None:
        """Return the image that the stack of *role* names; None for the system's own."""
        stack = self._rehearser.sides.stacks[self._sides[role]]
        return self._rehearser.images.get(stack.image or "")

    @property
    def _containment(self) -> Containment:
        """The allocation's, with each server in the image of its side."""
        found = {role: self._image(role) for role in self._sides}
        images = {role: each.image.name for role, each in found.items() if each is not None}
        return replace(self._rehearser.allocation.containment, images=images)

    def _start(self, launcher: Launcher) -> tuple[Launch, list[Server]]:
        """Start both instances and wait until they are healthy."""
        allocation, topology = self._rehearser.allocation, Topology.parse(TOPOLOGY)
        plan, processes = launcher.start_planned(
            lambda: plan_launch(
                topology,
                self._system,
                hosts=allocation.hosts,
                claim=allocation.claim,
                containment=self._containment,
            )
        )
        servers = servers_of(plan, processes)
        launcher.wait_ready(servers)
        return plan, servers

    def _judge(self, launcher: Launcher, plan: Launch, servers: Sequence[Server]) -> Judged:
        """Warm up the pair, prove its path, compare greedy tokens, and return the outcome."""
        allocation = self._rehearser.allocation
        try:
            deployment = complete_deployment(launcher, plan, servers)
            self._verify([s for s in deployment.servers if s.role == _ROUTER])
            texts = self._texts(deployment)
            self._result = replace(self._result, sides_agree=self._agreement(texts))
            if has_random_weights(self._system):
                why = "weights are random (--load-format dummy): a wrong KV cache would not show"
                return Judged(outcome="not shown", why=why)
            (decode,) = (server for server in deployment.instances if server.role == DECODE)
            ask = deployment.completions
            return judge_texts(texts, lambda each: ask_gap(ask, str(decode.url), each))
        except PathError as error:
            allocation.check(fresh=True)
            return judge_error(error)
        except NotReadyError as error:
            allocation.check(fresh=True)
            return Judged(outcome="does not start", why=_one_line(error))
        except LaunchError as error:
            allocation.check(fresh=True)
            ended = [p for p in launcher.processes if p.poll() is not None]
            if not ended:
                raise
            return Judged(outcome="refuses", why=_one_line(error))

    def _texts(self, deployment: Deployment) -> list[GreedyTexts]:
        """Return greedy tokens of the topology, and of each instance alone."""
        url = {server.role: str(server.url) for server in deployment.instances}

        def ask(target: str, prompt: str, salt: str) -> str:
            # Salted, so that no request hits the prefix cache of another.
            return deployment.completions.text(target, prompt, tokens=TOKENS, cache_salt=salt)

        with Heartbeat(self._rehearser.progress, "comparing greedy tokens"):
            return [
                GreedyTexts(
                    prompt=prompt,
                    other=ask(url[PREFILL], prompt, "alone"),
                    alone=ask(url[DECODE], prompt, "alone"),
                    again=ask(url[DECODE], prompt, "again"),
                    through=ask(deployment.url, prompt, "through"),
                )
                for prompt in long_prompts()
            ]

    def _agreement(self, texts: Sequence[GreedyTexts]) -> bool | None:
        return sides_agree(texts) if self._combination.mixed else None

    def _verify(self, servers: Sequence[Server]) -> None:
        """Check that *servers* have loaded the versions of their stacks.

        :raises InvalidRunError: naming the first version that differs.
        """
        running = {
            server.role: Running(
                name=server.name,
                process=server.process,
                parts=parts_of(server.role, self._system.kv_transfer),
            )
            for server in servers
            if server.process is not None
        }
        folder = self._folder / f"versions-{'-'.join(running)}"
        versions = running_versions(self._rehearser.allocation, [*running.values()], folder)
        for role, process in running.items():
            provided = self._image(role)
            there = versions[process.name] if provided is None else provided.versions
            found = {process.name: {k: v for k, v in there.items() if k in process.parts}}
            self._versions |= found
            check_versions(self._rehearser.sides.stacks[self._sides[role]], [process], found)

    def _done(self, judged: Judged) -> Rehearsed:
        return replace(
            self._result, outcome=judged.outcome, why=judged.why, versions=self._versions
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def rehearsing(sides: Sides, folder: Path, progress: Progress) -> Iterator[Rehearser]:
    """Acquire nodes for a rehearsal; release them on exit.

    :param folder: folder of the rehearsal.
    :raises AllocationError: if nodes cannot be acquired.
    :raises StoreError: if models cannot be linked.
    """
    from pytest_pdserve.backends.backend import Request
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.results.redaction import redacting_files
    from pytest_pdserve.serving.clients import bench_client

    backend = backend_of(sides.system)
    request = Request(folder=folder / backend.name, progress=progress)
    sides.link_models()
    with (
        redacting_files(folder),
        backend.acquire(sides.system, request) as allocation,
        bench_client(sides.system, allocation, folder / "client", measuring=False) as bench,
    ):
        yield Rehearser(
            allocation=allocation,
            sides=sides,
            bench=bench,
            folder=folder,
            progress=progress,
            images=provide_images(sides.stacks.values(), sides.system, allocation, progress),
        )


def check_system(system: System) -> None:
    """Raise if stacks cannot be mixed on *system*.

    :raises ConfigError: if its backend starts no servers, or they run in containers of pyxis.
    """
    from pytest_pdserve.backends.planned import plan_topology
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.values.errors import ConfigError

    backend = backend_of(system)
    if backend.deployer is not None or not backend.starts_servers:
        raise ConfigError(
            f"system {system.name!r} is of kind {backend.name!r}, which starts no servers; "
            "pdserve rehearse needs one of kind local or slurm"
        )
    if system.container.kind == "pyxis":
        raise ConfigError(
            f"system {system.name!r} runs servers by pyxis, where all servers of a Slurm step have "
            f"one image; pdserve rehearse mixes images: use another [container] kind in "
            f"{system.source}"
        )
    backend.check(system)
    backend.check_launch(
        system, plan_topology(system, Topology.parse(TOPOLOGY), starting=True).launch
    )
