"""One start of a topology with one stack: servers up, versions verified, every load once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
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
from pytest_pdserve.backends.stacks.running import Running
from pytest_pdserve.backends.stacks.running import check_versions
from pytest_pdserve.backends.stacks.running import parts_of
from pytest_pdserve.backends.stacks.running import running_versions
from pytest_pdserve.gating.arms import Arm
from pytest_pdserve.gating.arms import public
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
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

GREEDY_PROMPTS = 8
"""Prompts whose greedy answers are compared between the stacks."""
GREEDY_TOKENS = 16
"""Tokens of each answer."""
_LONGEST_WHY = 500
"""Characters of the sentence that says why a start failed."""
_FAULTS = (LaunchError, NotReadyError, PathError, ClientError)
"""Errors that the servers may have caused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What every start of a gate uses while nodes are held."""

    folder: Path
    """The gate's."""
    session: SessionRef
    """The gate, as its records name it."""
    allocation: Allocation
    """Nodes."""
    bench: BenchClient | None
    """The one client of both stacks; None where no server is asked."""
    common: Provenance
    """What records of both sides share."""
    progress: Progress
    """Told what is being waited for."""
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True, kw_only=True)
class _Doing:
    """A start on its way, and what it has come to."""

    step: GateStep
    number: int
    arm: Arm
    held: Held
    store: RunStore
    what: str = "it does not start"
    records: list[Record] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    answers: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def run_start(
    step: GateStep, number: int, arm: Arm, workloads: Sequence[Workload], held: Held
) -> tuple[GateStart, tuple[Record, ...]]:
    """Start the servers of a step, measure each load once, end them.

    :param number: of the start, counted from 0 over the gate.
    :returns: how it ended, and its records, the invalid ones too.
    :raises AllocationError: if a node is lost.
    :raises InvalidRunError: if the processes have other versions than the stack.
    """
    began = held.clock()
    store = RunStore(folder=_free_folder(held.folder, step.name), session=held.session)
    doing = _Doing(step=step, number=number, arm=arm, held=held, store=store)
    outcome, why = Outcome.OK, ""
    try:
        _measure(doing, workloads)
        outcome, why = outcome_of(doing.records)
    except PortTakenError as error:
        outcome, why = Outcome.TROUBLE, f"{doing.what}: {error}"
    except _FAULTS as error:
        outcome, why = Outcome.FAULT, f"{doing.what}: {error}"
    start = GateStart(
        step=step,
        folder=store.folder.name,
        outcome=outcome,
        why=sentence(why),
        records=tuple(str(path.relative_to(held.folder)) for path in doing.paths),
        answers=doing.answers,
        versions=doing.versions,
        seconds=round(held.clock() - began, 3),
    )
    return start, tuple(doing.records)


def sentence(text: str) -> str:
    """Return *text* on one line, without secrets, its middle left out where it is long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = environment_redactor().text(line)
    if len(line) <= _LONGEST_WHY:
        return line
    half = _LONGEST_WHY // 2
    return f"{line[:half]} … {line[-half:]}"


def _free_folder(gate: Path, name: str) -> Path:
    """Return a folder that no interrupted start has used."""
    for suffix in itertools.chain(("",), (f"-again{n}" for n in itertools.count(1))):
        folder = gate / f"{name}{suffix}"
        if not folder.exists():
            return folder
    raise AssertionError


def _measure(doing: _Doing, workloads: Sequence[Workload]) -> None:
    """Start the servers, verify them, and measure each load until a run is invalid."""
    step, arm, held, store = doing.step, doing.arm, doing.held, doing.store
    topology, backend = Topology.parse(step.topology), backend_of(arm.system)
    deploying = (backend.deployer or stand_up)(
        held.allocation,
        topology,
        backend.at_start(arm.system, doing.number),
        logs=store.logs(topology.id),
        progress=held.progress,
        rotation=rotation(step, arm),
        **_bench(held),
    )
    with deploying as deployment:
        provenance = arm.provenance(held.allocation, held.common)
        doing.versions = provenance.versions
        if isinstance(deployment, Deployment):
            doing.what = "it does not answer"
            doing.versions = {**provenance.versions, **_verified(deployment, arm, store.folder)}
            provenance = replace(provenance, versions=doing.versions)
            doing.answers = _greedy_answers(deployment)
        for workload in workloads:
            doing.what = f"it fails under the load {workload.id}"
            record, path = deployment.measure(
                workload, repeat=step.repeat, start=doing.number, store=store, provenance=provenance
            )
            doing.records.append(record)
            doing.paths.append(path)
            if record.invalid:
                return


def _bench(held: Held) -> dict[str, Any]:
    return {} if held.bench is None else {"bench": held.bench}


def rotation(step: GateStep, arm: Arm) -> int:
    """Return by how many places nodes are rotated: the same for all starts of a block."""
    cluster = arm.system.cluster
    return 0 if cluster.shared_host else step.block % cluster.nodes


def _verified(deployment: Deployment, arm: Arm, folder: Path) -> dict[str, str]:
    """Return the versions that the running processes show, which must be those of the stack."""
    moves_kv = deployment.topology.disaggregated
    servers = [
        Running(name=s.name, process=s.process, parts=parts_of(s.role, moves_kv=moves_kv))
        for s in deployment.servers
        if s.process is not None
    ]
    found = running_versions(deployment.allocation, servers, folder / "versions")
    check_versions(arm.stack, servers, found)
    return public({name: value for said in found.values() for name, value in said.items()})


def _greedy_answers(deployment: Deployment) -> tuple[str, ...]:
    """Ask the same prompts at every start, one after the other.

    :raises PathError: if one is not answered.
    """
    completions = deployment.completions
    return tuple(
        completions.stream(deployment.url, prompt, tokens=GREEDY_TOKENS).text
        for prompt in long_prompts(GREEDY_PROMPTS)
    )


def as_error(error: PdserveError) -> str:
    """Return why a gate could not go on, in one sentence."""
    return sentence(str(error))
