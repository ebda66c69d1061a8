"""A rehearsal: each combination of two stacks is stood up, asked, and ended before the next."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.stacks import check_versions
from pytest_pdserve.backends.stacks import running_versions
from pytest_pdserve.backends.stacks.running import Running
from pytest_pdserve.backends.stacks.running import parts_of
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.model import has_random_weights
from pytest_pdserve.serving.near_ties import LIKELIEST
from pytest_pdserve.serving.near_ties import common
from pytest_pdserve.serving.near_ties import gap_of
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.smoke import TOKENS
from pytest_pdserve.serving.smoke import long_prompts
from pytest_pdserve.serving.stand_up import Launcher
from pytest_pdserve.serving.stand_up import deployed
from pytest_pdserve.serving.stand_up import servers_of
from pytest_pdserve.serving.stand_up import starting
from pytest_pdserve.session.rehearse_outcome import Judged
from pytest_pdserve.session.rehearse_outcome import Texts
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
"""What is stood up: the smallest that moves a KV cache."""
_ROUTER = "router"
_NIXL = "NixlConnector"
Versions = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsing:
    """Stands combinations up on nodes that are held."""

    allocation: Allocation
    """The nodes."""
    sides: Sides
    """What is mixed."""
    bench: BenchClient
    """Knows the session's key; it measures nothing."""
    folder: Path
    """Of the rehearsal: a folder in it for each combination."""
    progress: Progress
    """Told what is being waited for."""
    clock: Callable[[], float] = time.monotonic

    def rehearse(self, combination: Combination) -> Rehearsed:
        """Stand *combination* up, ask it, and end it.

        :raises InvalidRunError: if a server has loaded other versions than its stack has.
        :raises AllocationError: if a node is lost.
        :raises LaunchError: if a node cannot tell versions.
        """
        return _Attempt(self, combination).run()


class _Attempt:
    """One combination while it is stood up: what is known so far."""

    def __init__(self, rehearsing: Rehearsing, combination: Combination) -> None:
        self._of = rehearsing
        self._combination = combination
        self._system = rehearsing.sides.of(combination)
        self._here = rehearsing.folder / combination.id
        self._versions: dict[str, Mapping[str, str]] = {}
        self._known = Rehearsed(combination=combination, outcome="does not start", why="")

    def run(self) -> Rehearsed:
        """Return what became of it."""
        of, logs = self._of, self._here / "logs"
        with starting(
            of.allocation, self._system, of.bench, logs=logs, progress=of.progress
        ) as launcher:
            began = of.clock()
            try:
                plan, servers = self._start(launcher)
            except PortTakenError:
                raise
            except (LaunchError, NotReadyError) as error:
                of.allocation.check(fresh=True)  # a lost node is no fault of the combination
                return self._done(Judged(outcome="does not start", why=_one_line(error)))
            ready = of.clock()
            self._known = replace(self._known, ready_s=ready - began)
            self._verify(servers)
            judged = self._asked(launcher, plan, servers)
            self._known = replace(self._known, after_s=of.clock() - ready)
            return self._done(judged)

    def _start(self, launcher: Launcher) -> tuple[Launch, list[Server]]:
        """Start both instances and wait until they are healthy."""
        allocation, topology = self._of.allocation, Topology.parse(TOPOLOGY)
        plan, processes = launcher.start_planned(
            lambda: plan_launch(
                topology,
                self._system,
                hosts=allocation.hosts,
                claim=allocation.claim,
                containment=allocation.containment,
            )
        )
        servers = servers_of(plan, processes)
        launcher.wait_ready(servers)
        return plan, servers

    def _asked(self, launcher: Launcher, plan: Launch, servers: Sequence[Server]) -> Judged:
        """Warm the pair, prove its path, and ask for greedy tokens."""
        allocation = self._of.allocation
        try:
            deployment = deployed(launcher, plan, servers)
            self._verify([s for s in deployment.servers if s.role == _ROUTER])
            texts = self._texts(deployment)
            self._known = replace(self._known, sides_agree=self._agreement(texts))
            if has_random_weights(self._system):
                why = "weights are random (--load-format dummy): a wrong KV cache would not show"
                return Judged(outcome="not shown", why=why)
            return judge_texts(texts, lambda each: _gap(deployment, each))
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

    def _texts(self, deployment: Deployment) -> list[Texts]:
        """Ask the topology, and each instance by itself, for greedy tokens."""
        url = {server.role: str(server.url) for server in deployment.instances}

        def ask(target: str, prompt: str, salt: str) -> str:
            # Salted, so that no answer is made of what another has left in a prefix cache.
            return deployment.completions.text(target, prompt, tokens=TOKENS, cache_salt=salt)

        with Heartbeat(self._of.progress, "comparing greedy tokens"):
            return [
                Texts(
                    prompt=prompt,
                    prefill=ask(url[PREFILL], prompt, "alone"),
                    decode=ask(url[DECODE], prompt, "alone"),
                    again=ask(url[DECODE], prompt, "again"),
                    through=ask(deployment.url, prompt, "through"),
                )
                for prompt in long_prompts()
            ]

    def _agreement(self, texts: Sequence[Texts]) -> bool | None:
        return sides_agree(texts) if self._combination.mixed else None

    def _verify(self, servers: Sequence[Server]) -> None:
        """Read what *servers* have loaded, and refuse what their stacks do not have.

        :raises InvalidRunError: naming the first that differs.
        """
        side: dict[str, Side] = {
            PREFILL: self._combination.prefill,
            DECODE: self._combination.decode,
            _ROUTER: self._combination.router,
        }
        moves_kv = self._system.kv_transfer.connector == _NIXL
        running = {
            server.role: Running(
                name=server.name,
                process=server.process,
                parts=parts_of(server.role, moves_kv=moves_kv),
            )
            for server in servers
            if server.process is not None
        }
        folder = self._here / f"versions-{'-'.join(running)}"
        found = running_versions(self._of.allocation, [*running.values()], folder)
        self._versions |= found
        for role, each in running.items():
            check_versions(self._of.sides.stacks[side[role]], [each], found)

    def _done(self, judged: Judged) -> Rehearsed:
        known = self._known
        return replace(known, outcome=judged.outcome, why=judged.why, versions=self._versions)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _gap(deployment: Deployment, each: Texts) -> float | None:
    """By how many nats the decode instance finds a text less likely where it parts from its own."""
    (decode,) = (server for server in deployment.instances if server.role == DECODE)
    begin = common(each.decode, each.through)
    answer = deployment.completions.ask(
        str(decode.url), each.prompt + begin, tokens=1, logprobs=LIKELIEST
    )
    return gap_of(answer, each.through[len(begin) :])


@contextlib.contextmanager
def rehearsing(sides: Sides, folder: Path, progress: Progress) -> Iterator[Rehearsing]:
    """Acquire nodes for a rehearsal, and give them back on leaving.

    :param folder: of the rehearsal.
    :raises AllocationError: if they cannot be had.
    :raises StoreError: if models cannot be laid out.
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
        yield Rehearsing(
            allocation=allocation, sides=sides, bench=bench, folder=folder, progress=progress
        )


def check_system(system: System) -> None:
    """Refuse a system on which nothing can be mixed.

    :raises ConfigError: if its backend starts no servers, or they run in containers.
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
    if system.container.contained:
        raise ConfigError(
            f"system {system.name!r} runs servers in containers of one image; pdserve rehearse "
            "mixes Python environments: use a system without [container]"
        )
    backend.check(system)
    backend.check_launch(
        system, plan_topology(system, Topology.parse(TOPOLOGY), starting=True).launch
    )
