"""Start the servers of a topology, for the first time and again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.ordering import workloads_on

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation
    from pytest_pdserve.serving.client import BenchClient
    from pytest_pdserve.serving.restartable import Servers
    from pytest_pdserve.serving.running_transfers import BareFigures
    from pytest_pdserve.serving.shared import SharedEngines
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.transfer.preflight import Preflight
    from pytest_pdserve.values.system import System
    from pytest_pdserve.values.topology import Topology
    from pytest_pdserve.values.transfer import TransferBaseline


def starter(
    topology: Topology,
    session: Session,
    allocation: Allocation,
    bench: BenchClient | None,
    items: Sequence[pytest.Item],
) -> Callable[[int], contextlib.AbstractContextManager[Servers]]:
    """Return a function that starts the servers of a topology while prompts are prepared."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.serving.clients import prepare

    backend, system, progress = backend_of(session.system), session.system, session.progress
    shared = _shared(topology, session, allocation, bench, items)

    @contextlib.contextmanager
    def start(number: int) -> Iterator[Servers]:
        _make_room(topology, session, shared)
        bare = _check_pairs(topology, session, allocation, shared, number)
        deploying = _deploying(topology, session, allocation, bench, shared, number)
        if bench is not None:
            workloads = workloads_on(topology, items)
            prepare(
                bench,
                workloads,
                topology,
                system,
                store=session.store,
                repeats=session.settings.repeats,
                shares=shared is not None,
            )
        with session.phases.serving(topology.id, deploying) as deployment:
            session.set_versions(deployment.versions)
            if bare is not None:
                _check_running(deployment, bare, session)
            yield deployment
            if backend.starts_servers and not system.simulated:
                progress("stopping")

    return start


def _make_room(topology: Topology, session: Session, shared: SharedEngines | None) -> None:
    """Stop shared instances that *topology* cannot use, since they hold the memory."""
    stop_shared(session, but=shared)
    if shared is not None:
        shared.make_room(topology)


def _check_pairs(
    topology: Topology,
    session: Session,
    allocation: Allocation,
    shared: SharedEngines | None,
    number: int,
) -> BareFigures | None:
    """Measure the pairs of nodes before a model loads, of all topologies that share instances.

    :returns: figures of NIXL without a model; None if the system requires no speed, or the topology
        moves no KV cache.
    :raises TransferError: with the pairs and nodes that are too slow.
    """
    topologies = (topology,) if shared is None else shared.topologies
    if not any(_requires_speed(each, session.system) for each in topologies):
        return None
    from pytest_pdserve.transfer.bare import bare_figures
    from pytest_pdserve.transfer.preflight import Preflight

    may_measure = shared is None or not shared.are_up
    with session.phases.of("start"):
        preflight = Preflight(
            allocation=allocation,
            system=session.system,
            topologies=topologies,
            rotation=session.rotation(number if shared is None else shared.next_start),
            baseline=_baseline(session),
            checked=session.checked_pairs,
            store=session.store,
            fingerprint=session.provenance.fingerprint,
            progress=session.progress,
        )
        if session.system.transfer.preflight:
            _preflight(preflight, topology, session, may_measure=may_measure)
        figures = bare_figures(
            preflight, versions=session.provenance.versions, may_measure=may_measure
        )
    return figures if topology.disaggregated else None


def _preflight(
    preflight: Preflight, topology: Topology, session: Session, *, may_measure: bool
) -> None:
    """Check pairs; nodes that are excluded are then in the session's records and summary."""
    try:
        if may_measure:
            preflight.check()
    finally:
        cluster = preflight.allocation.describe()
        session.provenance = replace(session.provenance, cluster=cluster)
        session.session_judge.provenance = session.provenance
    preflight.require(topology)


def _requires_speed(topology: Topology, system: System) -> bool:
    """Tell whether the session starts KV transfers, and the system file has a required speed."""
    from pytest_pdserve.backends.registry import backend_of

    backend, settings = backend_of(system), system.transfer
    starts = backend.starts_servers and backend.deployer is None
    has_required_speed = settings.preflight or settings.floor_gb_s is not None
    return topology.disaggregated and starts and has_required_speed


def _check_running(deployment: Servers, bare: BareFigures, session: Session) -> None:
    """Measure the pairs of a deployed topology, one transfer at a time.

    :raises TransferError: with the pairs that are slower than the system requires.
    """
    from pytest_pdserve.serving.deployment import Deployment
    from pytest_pdserve.transfer.running import prove_transfers

    assert isinstance(deployment, Deployment)
    with session.phases.of("warm-up"):
        prove_transfers(deployment, bare, _baseline(session))


def _baseline(session: Session) -> TransferBaseline | None:
    """Return the baseline of transfers, for systems without a floor."""
    from pytest_pdserve.results.transfer import load_transfer_baseline

    rootdir, digest = session.settings.project.rootdir, session.provenance.fingerprint
    return load_transfer_baseline(session.system, rootdir, digest, session.state)


def _deploying(
    topology: Topology,
    session: Session,
    allocation: Allocation,
    bench: BenchClient | None,
    shared: SharedEngines | None,
    number: int,
) -> contextlib.AbstractContextManager[Servers]:
    """Deploy a topology on shared instances or on its own."""
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
    """Return the instances that a topology shares with others; None if it has its own."""
    from pytest_pdserve.serving.shared import SharedEngines

    group = groups_of(items, session.system).get(topology.id)
    if group is None or bench is None:
        return None
    if topology.id not in session.shared:
        engines = SharedEngines(
            topologies=group,
            system=session.system,
            allocation=allocation,
            bench=bench,
            logs=lambda number: session.store.logs("shared", number),
            rotation=session.rotation,
        )
        session.shared |= {each.id: engines for each in group}
    return session.shared[topology.id]


def stop_shared(session: Session, but: SharedEngines | None = None) -> None:
    """Stop shared instances, except those of *but*."""
    for each in session.shared.values():
        if each is not but:
            each.stop()


def groups_of(items: Sequence[pytest.Item], system: System) -> Mapping[str, tuple[Topology, ...]]:
    """Return which topologies of *items* share instances, by id; empty if none do."""
    if not system.cluster.share_engines:
        return {}
    from pytest_pdserve.plan.sharing import sharing_groups

    return sharing_groups([t for item in items if (t := topology_of(item)) is not None], system)
