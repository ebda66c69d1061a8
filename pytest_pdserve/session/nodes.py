"""The machines of a session: acquired, and given back whatever happens."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.cluster.facts import describe_hardware
from pytest_pdserve.cluster.local import LocalAllocation
from pytest_pdserve.cluster.process import Allocation
from pytest_pdserve.cluster.process import Progress
from pytest_pdserve.options import Settings
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System


def host_of(settings: Settings) -> dict[str, str]:
    """What decides how fast servers answer: this machine, or an endpoint of somebody else's."""
    return {"endpoint": settings.base_url} if settings.base_url else describe_hardware()


def check_acquirable(system: System) -> None:
    """Make sure that this version can acquire nodes of *system*.

    :raises ConfigError: if it can only plan for them, or what acquires them is not installed.
    """
    kind = system.cluster.kind
    if kind == "slurm" and importlib.util.find_spec("submitit") is None:
        raise ConfigError(
            f"system {system.name!r} needs submitit, which is not installed; "
            "install pytest-pdserve[slurm]"
        )
    if kind == "simulated" and importlib.util.find_spec("simpy") is None:
        raise ConfigError(
            f"system {system.name!r} needs simpy, which is not installed; "
            "install pytest-pdserve[simulate]"
        )
    if kind == "figures":
        raise ConfigError(
            f"system {system.name!r} is figures without a machine, so nothing can be measured on "
            f"it; run pytest suites/claims --system {system.name}"
        )
    if kind == "attached":
        raise ConfigError(
            f"system {system.name!r} is of kind {kind!r}: this version plans for it, but does not "
            "acquire its nodes; give --pdserve-base-url for an endpoint that is up"
        )


@contextlib.contextmanager
def acquire(
    system: System,
    *,
    folder: Path,
    progress: Progress,
    job_id: str | None = None,
) -> Iterator[Allocation]:
    """Nodes of *system*, given back on leaving, whatever happens.

    :param folder: the session's own; on a cluster, on a file system that nodes share.
    :param job_id: a running Slurm job whose nodes are used; None to submit one.
    :raises ConfigError: if this kind of cluster cannot be had.
    :raises AllocationError: if its nodes cannot be had.
    """
    check_acquirable(system)
    if system.cluster.kind == "slurm":
        from pytest_pdserve.cluster.slurm import acquired  # noqa: PLC0415 - knows submitit

        with acquired(system, folder=folder, job=job_id, progress=progress) as nodes:
            yield nodes
        return
    allocation: Allocation
    if system.cluster.kind == "simulated":
        from pytest_pdserve.cluster.simulated import SimulatedAllocation  # noqa: PLC0415

        allocation = SimulatedAllocation(system)
    else:
        allocation = LocalAllocation(system)
    try:
        yield allocation
    finally:
        allocation.release()


def client_only(system: System) -> System:
    """*system* reduced to one slot of this machine, for the client of somebody else's endpoint."""
    return replace(system, cluster=replace(system.cluster, kind="local", nodes=1))
