"""How the servers of a topology are started, for the first time and anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.ordering import workloads_on

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation
    from pytest_pdserve.serving.client import BenchClient
    from pytest_pdserve.serving.restartable import Servers
    from pytest_pdserve.serving.shared import SharedEngines
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.values.system import System
    from pytest_pdserve.values.topology import Topology


def starter(
    topology: Topology,
    session: Session,
    allocation: Allocation,
    bench: BenchClient | None,
    items: Sequence[pytest.Item],
) -> Callable[[int], contextlib.AbstractContextManager[Servers]]:
    """Return what starts the servers of a topology, while the prompts of its tests are made."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.serving.clients import prepare

    backend, system, progress = backend_of(session.system), session.system, session.progress
    shared = _shared(topology, session, allocation, bench, items)

    @contextlib.contextmanager
    def start(number: int) -> Iterator[Servers]:
        stop_shared(session, but=shared)
        if number == 0 and system.transfer.preflight and backend.starts_servers:
            _check_pairs(topology, session, allocation)
        deploying = _deploying(topology, session, allocation, bench, shared, number)
        if bench is not None:
            asked = workloads_on(topology, items)
            prepare(
                bench,
                asked,
                topology,
                system,
                store=session.store,
                repeats=session.settings.repeats,
                shares=shared is not None,
            )
        with session.phases.serving(topology.id, deploying) as deployment:
            session.set_versions(deployment.versions)
            yield deployment
            if backend.starts_servers and not system.simulated:
                progress("stopping")

    return start


def _check_pairs(topology: Topology, session: Session, allocation: Allocation) -> None:
    """Measure the pairs that a topology will use, before a model loads.

    :raises TransferError: naming pairs and nodes that are slower than they must be.
    """
    from pytest_pdserve.results.transfer import load_transfer_baseline
    from pytest_pdserve.transfer.preflight import Preflight

    system, digest = session.system, session.provenance.fingerprint
    rootdir = session.settings.project.rootdir
    with session.phases.of("start"):
        preflight = Preflight(
            allocation=allocation,
            system=system,
            baseline=load_transfer_baseline(system, rootdir, digest, session.state),
            store=session.store,
            fingerprint=digest,
            progress=session.progress,
        )
        preflight.check(topology, rotation=session.rotation(0))


def _deploying(
    topology: Topology,
    session: Session,
    allocation: Allocation,
    bench: BenchClient | None,
    shared: SharedEngines | None,
    number: int,
) -> contextlib.AbstractContextManager[Servers]:
    """Stand a topology up: on instances that it shares, or on its own."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.serving.stand_up import stand_up

    logs, progress = session.store.logs(topology.id, number), session.progress
    if shared is not None:
        return shared.serving(topology, logs=logs, progress=progress)
    deploy = backend_of(session.system).deployer or stand_up
    return deploy(
        allocation,
        topology,
        session.system,
        logs=logs,
        progress=progress,
        rotation=session.rotation(number),
        **({"bench": bench} if bench is not None else {}),
    )


def _shared(
    topology: Topology,
    session: Session,
    allocation: Allocation,
    bench: BenchClient | None,
    items: Sequence[pytest.Item],
) -> SharedEngines | None:
    """Return the instances that a topology shares with others of the session; None for its own."""
    from pytest_pdserve.serving.shared import SharedEngines

    group = groups_of(items, session.system).get(topology.id)
    if group is None or bench is None:
        return None
    if topology.id not in session.shared:
        made = SharedEngines(
            topologies=group,
            system=session.system,
            allocation=allocation,
            bench=bench,
            logs=lambda number: session.store.logs("shared", number),
            rotation=session.rotation,
        )
        session.shared |= {each.id: made for each in group}
    return session.shared[topology.id]


def stop_shared(session: Session, but: SharedEngines | None = None) -> None:
    """End instances that topologies share, all or all others than *but*."""
    for each in session.shared.values():
        if each is not but:
            each.stop()


def groups_of(items: Sequence[pytest.Item], system: System) -> Mapping[str, tuple[Topology, ...]]:
    """Return which topologies of *items* share instances, by id; empty where none do."""
    if not system.cluster.share_engines:
        return {}
    from pytest_pdserve.plan.sharing import sharing_groups

    return sharing_groups([t for item in items if (t := topology_of(item)) is not None], system)
