"""One start of a topology with one stack: start servers, verify versions, measure each load."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.stacks.images import ProvidedImage
from pytest_pdserve.backends.stacks.images import held_nodes
from pytest_pdserve.backends.stacks.running import Running
from pytest_pdserve.backends.stacks.running import check_versions
from pytest_pdserve.backends.stacks.running import parts_of
from pytest_pdserve.backends.stacks.running import running_versions
from pytest_pdserve.gating.sides import OWN_PACKAGE
from pytest_pdserve.gating.sides import GateSide
from pytest_pdserve.gating.sides import public_versions
from pytest_pdserve.judge.gate.correctness import outcome_of
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.deployment import Deployment
from pytest_pdserve.serving.smoke import long_prompts
from pytest_pdserve.serving.stand_up import stand_up
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.errors import PortTakenError
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import GateStep
from pytest_pdserve.values.gate_state import Outcome
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

GREEDY_PROMPTS = 8
"""Number of prompts whose greedy answers are compared between the stacks."""
GREEDY_TOKENS = 16
"""Number of tokens of each answer."""
_MAX_REASON = 500
"""Maximum characters of the reason why a start failed."""
_FAULTS = (LaunchError, NotReadyError, PathError, ClientError)
"""Errors that the servers may have caused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContext:
    """Everything that the starts of a gate share while nodes are held."""

    folder: Path
    """Folder of the gate."""
    session: SessionRef
    """Session of all records: the gate."""
    allocation: Allocation
    bench: BenchClient | None
    """Benchmark client for both stacks; None if simulated."""
    common: Provenance
    """Provenance that records of both sides share."""
    images: Mapping[str, ProvidedImage] = field(default_factory=dict)
    """Images that stacks name, by that name."""
    progress: Progress
    """Reports what the gate is waiting for."""
    clock: Callable[[], float] = time.monotonic

    @contextlib.contextmanager
    def of(self, side: GateSide) -> Iterator[StartContext]:
        """Yield this context for *side*: with its image, in which its servers are started."""
        provided = self.images.get(side.stack.image or "")
        if provided is None:
            yield self
            return
        common = self.common.versions
        ours = {name: common[name] for name in (OWN_PACKAGE, "commit") if name in common}
        versions = {**provided.versions, **ours}
        with held_nodes(self.allocation).using_image(provided.image):
            yield replace(self, common=replace(self.common, versions=versions))


@dataclass(slots=True, kw_only=True)
class _StartInProgress:
    """A start that is running, and its results so far."""

    step: GateStep
    number: int
    side: GateSide
    held: StartContext
    store: RunStore
    failure: str = "it does not start"
    """What an error in the current phase means."""
    records: list[Record] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    answers: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def run_start(
    step: GateStep, number: int, side: GateSide, workloads: Sequence[Workload], held: StartContext
) -> tuple[GateStart, tuple[Record, ...]]:
    """Start the servers of a step, measure each load once, stop them.

    :param number: number of the start, counted from 0 over the gate.
    :returns: its result, and its records, valid or not.
    :raises AllocationError: if a node is lost.
    :raises InvalidRunError: if the processes have other versions than the stack.
    """
    began = held.clock()
    store = RunStore(folder=_free_folder(held.folder, step.name), session=held.session)
    running = _StartInProgress(step=step, number=number, side=side, held=held, store=store)
    outcome, why = Outcome.OK, ""
    try:
        with held.of(side) as running.held:
            _measure(running, workloads)
        outcome, why = outcome_of(running.records)
    except PortTakenError as error:
        outcome, why = Outcome.TROUBLE, f"{running.failure}: {error}"
    except _FAULTS as error:
        outcome, why = Outcome.FAULT, f"{running.failure}: {error}"
    start = GateStart(
        step=step,
        folder=store.folder.name,
        outcome=outcome,
        why=sentence(why),
        records=tuple(str(path.relative_to(held.folder)) for path in running.paths),
        answers=running.answers,
        versions=running.versions,
        seconds=round(held.clock() - began, 3),
    )
    return start, tuple(running.records)


def sentence(text: str) -> str:
    """Return *text* on one line, without secrets, shortened in the middle if long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = environment_redactor().text(line)
    if len(line) <= _MAX_REASON:
        return line
    half = _MAX_REASON // 2
    return f"{line[:half]} … {line[-half:]}"


def _free_folder(gate: Path, name: str) -> Path:
    """Return a folder that does not exist yet."""
    for suffix in itertools.chain(("",), (f"-again{n}" for n in itertools.count(1))):
        folder = gate / f"{name}{suffix}"
        if not folder.exists():
            return folder
    raise AssertionError


def _measure(running: _StartInProgress, workloads: Sequence[Workload]) -> None:
    """Start the servers, verify them, and measure each load until a run is invalid."""
    step, side, held, store = running.step, running.side, running.held, running.store
    topology, backend = Topology.parse(step.topology), backend_of(side.system)
    deploying = (backend.deployer or stand_up)(
        held.allocation,
        topology,
        backend.at_start(side.system, running.number),
        logs=store.logs(topology.id),
        progress=held.progress,
        rotation=rotation(step.block, side.system),
        **_bench(held),
    )
    with deploying as deployment:
        provenance = side.provenance(held.allocation, held.common)
        running.versions = provenance.versions
        if isinstance(deployment, Deployment):
            running.failure = "it does not answer"
            running.versions = {**provenance.versions, **_verified(deployment, side, store.folder)}
            provenance = replace(provenance, versions=running.versions)
            running.answers = _greedy_answers(deployment)
        for workload in workloads:
            running.failure = f"it fails under the load {workload.id}"
            record, path = deployment.measure(
                workload,
                repeat=step.repeat,
                start=running.number,
                store=store,
                provenance=provenance,
            )
            running.records.append(record)
            running.paths.append(path)
            if record.invalid:
                return


def _bench(held: StartContext) -> dict[str, Any]:
    return {} if held.bench is None else {"bench": held.bench}


def rotation(block: int, system: System) -> int:
    """Return by how many places nodes are rotated: equal for all starts of a block."""
    return 0 if system.cluster.shared_host else block % system.cluster.nodes


def rotations(system: System, blocks: int) -> tuple[int, ...]:
    """Return the different rotations of a gate of *blocks* blocks, in their order."""
    return tuple(dict.fromkeys(rotation(block, system) for block in range(blocks)))


def _verified(deployment: Deployment, side: GateSide, folder: Path) -> dict[str, str]:
    """Return the versions of the running processes, which must be those of the stack."""
    servers = [
        Running(name=s.name, process=s.process, parts=parts_of(s.role, side.system.kv_transfer))
        for s in deployment.servers
        if s.process is not None
    ]
    found = running_versions(deployment.allocation, servers, folder / "versions")
    check_versions(side.stack, servers, found)
    return public_versions(
        {name: value for versions in found.values() for name, value in versions.items()}
    )


def _greedy_answers(deployment: Deployment) -> tuple[str, ...]:
    """Send the same prompts at every start, one after the other; return the answers.

    :raises PathError: if one is not answered.
    """
    completions = deployment.completions
    return tuple(
        completions.stream(deployment.url, prompt, tokens=GREEDY_TOKENS).text
        for prompt in long_prompts(GREEDY_PROMPTS)
    )


def error_sentence(error: PdserveError) -> str:
    """Return why a gate could not continue, in one sentence."""
    return sentence(str(error))
