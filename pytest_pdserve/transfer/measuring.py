"""Measures transfers between the nodes of a system, and judges them with one repetition."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.judge.transfer import TransferVerdict
from pytest_pdserve.judge.transfer import confirmed
from pytest_pdserve.judge.transfer import judge_transfers
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.plan.transfer import shape_of
from pytest_pdserve.plan.transfer import transfer_cases
from pytest_pdserve.results.transfer import SUITE
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import make_model
from pytest_pdserve.transfer.agents import TransferAgents
from pytest_pdserve.transfer.agents import transfer_agents
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBackend
from pytest_pdserve.values.transfer import TransferBaseline
from pytest_pdserve.values.transfer import TransferCase
from pytest_pdserve.values.transfer import TransferShape


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPlan:
    """The transfers to measure."""

    pairs: tuple[Pair, ...]
    """Pairs of nodes."""
    backends: tuple[TransferBackend, ...]
    """NIXL backends, measured one after the other."""
    shapes: tuple[TransferShape, ...]
    repeats: int
    """How often each transfer is measured."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes of the pairs."""
        return tuple(dict.fromkeys(n for pair in self.pairs for n in (pair.reader, pair.source)))


def check_transfers(system: System) -> None:
    """Raise if no agents can be started on nodes of the system, or it has only one node.

    :raises ConfigError: naming its backend, or its number of nodes.
    """
    backend = backend_of(system)
    if backend.deployer is not None or not backend.starts_servers:
        raise ConfigError(
            f"system {system.name!r} is of kind {backend.name!r}, which starts nothing on nodes, "
            "so no transfer can be measured; choose another with --system"
        )
    if system.cluster.held_nodes < 2:
        raise ConfigError(
            f"system {system.name!r} has {system.cluster.nodes} node, and a transfer needs two; "
            f"set nodes in [cluster] of {system.source}"
        )


def shapes_of(
    system: System, cases: Sequence[TransferCase], *, progress: Progress
) -> tuple[TransferShape, ...]:
    """Return the shapes of *cases* with the model of *system*, which is made first if necessary.

    If the size of the model's KV cache is unknown, cases of prompts are left out with a message.

    :raises ConfigError: if no other case is left.
    """
    make_model(system)
    kv = load_kv_shape(system)
    measurable = [case for case in cases if kv is not None or case.prompt_tokens is None]
    if not measurable:
        shape_of(cases[0], system, kv)
    if len(measurable) < len(cases):
        progress(
            f"prompts are left out: the KV cache of model {system.model.path!r} is unknown on this "
            "machine"
        )
    return tuple(shape_of(case, system, kv) for case in measurable)


def chosen_cases(system: System, ids: Sequence[str]) -> tuple[TransferCase, ...]:
    """Return the cases of *system* with the given *ids*; all if there are none.

    :raises ConfigError: if one is not a case of the system.
    """
    cases = {case.id: case for case in transfer_cases(system)}
    for name in ids:
        if name not in cases:
            raise ConfigError(
                f"--case {name!r:.80}: expected one of {', '.join(cases)} (lengths, sizes and "
                f"numbers in flight are [transfer] of {system.source})"
            )
    return tuple(cases[name] for name in dict.fromkeys(ids)) or tuple(cases.values())


def judge_and_confirm(
    measured: Sequence[PairFigures],
    baseline: TransferBaseline | None,
    *,
    measure_again: Callable[[tuple[Pair, ...]], Sequence[PairFigures]],
) -> tuple[TransferVerdict, ...]:
    """Judge *measured* by *baseline*; pairs that fail are measured once more before the verdict."""
    first = judge_transfers(measured, baseline)
    slow = dict.fromkeys(each.measured.pair for each in first if each.status is Status.FAIL)
    if not slow:
        return first
    return confirmed(first, judge_transfers(measure_again(tuple(slow)), baseline))


def new_label(name: str, folder: Path) -> str:
    """Return *name*, or with a number if the session has used it: agents' folders must be new.

    :param folder: of the session.
    """
    before = len([*(folder / SUITE).glob(f"{name}*/")])
    return f"{name}-{before + 1}" if before else name


@contextlib.contextmanager
def running_agents(
    allocation: Allocation,
    system: System,
    plan: TransferPlan,
    *,
    folder: Path,
    progress: Progress,
    label: str = "agents",
) -> Iterator[tuple[TransferAgents, ...]]:
    """Start the agents of every backend of *plan*, and end them when the block ends.

    :param folder: of the session; the agents' folders are in it.
    :param label: beginning of the folders' names, to which the backend is appended.
    :raises LaunchError: if an agent cannot be started.
    """
    with contextlib.ExitStack() as held:
        yield tuple(
            held.enter_context(
                transfer_agents(
                    allocation,
                    system,
                    backend,
                    nodes=plan.nodes,
                    shapes=plan.shapes,
                    folder=folder / SUITE / f"{label}-{backend}",
                    progress=progress,
                )
            )
            for backend in plan.backends
        )


def measure_transfers(
    allocation: Allocation,
    system: System,
    plan: TransferPlan,
    *,
    folder: Path,
    progress: Progress,
    label: str = "agents",
) -> tuple[PairFigures, ...]:
    """Measure all of *plan*, with the agents of one backend at a time.

    Parameters are those of :func:`running_agents`.

    :raises LaunchError: if an agent cannot be started, or ends.
    :raises TransferError: if a transfer fails, or brings wrong bytes.
    """
    found: list[PairFigures] = []
    for backend in plan.backends:
        own = replace(plan, backends=(backend,))
        with running_agents(
            allocation, system, own, folder=folder, progress=progress, label=label
        ) as agents:
            for each in agents:
                found += each.measure(plan.pairs, plan.shapes, repeats=plan.repeats)
    return tuple(found)
