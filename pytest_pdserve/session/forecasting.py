"""Forecast the duration of a session from earlier sessions, before anything starts."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.plan.forecast import Forecast
from pytest_pdserve.plan.forecast import PastSession
from pytest_pdserve.plan.forecast import TopologyWork
from pytest_pdserve.plan.forecast import forecast
from pytest_pdserve.plan.sharing import sharing_groups
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.history import stored_sessions
from pytest_pdserve.results.store import load_times
from pytest_pdserve.session.evidence import Evidence
from pytest_pdserve.session.phases import held_by
from pytest_pdserve.session.project import Project
from pytest_pdserve.session.provenance import provenance_before
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

SESSIONS = 3
"""Number of earlier sessions that are used, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSession:
    """Cells and repeats that a session is going to measure."""

    cells: Mapping[str, Sequence[Workload]]
    """Workloads by topology."""
    other_tests: Collection[str]
    """Topologies whose servers are also used by other tests."""
    repeats: int
    """Runs of a cell on each start of its servers."""
    first_runs: int
    """Starts on which a cell without a reference is measured."""


def forecast_session(
    system: System, planned: PlannedSession, *, runs: Path, with_reference: Collection[Key]
) -> Forecast | None:
    """Return the forecast of a session; None for a simulated system and for figures.

    :param runs: folder of earlier sessions.
    :param with_reference: cells that have a reference.
    """
    if system.simulated or system.figures is not None:
        return None
    backend, cluster = backend_of(system), system.cluster
    work = [
        _work(topology, planned, with_reference, backend.starts_servers)
        for topology in planned.cells
    ]
    return forecast(
        _with_shared_starts(work, system),
        past_sessions(runs, system.name),
        client_kind=backend.client_kind(system),
        gpus=cluster.nodes * cluster.gpus_per_node,
        held=held_by(system, nodes=cluster.held_nodes if backend.starts_servers else 0),
    )


def _work(
    topology: str, planned: PlannedSession, with_reference: Collection[Key], starts_servers: bool
) -> TopologyWork:
    workloads = planned.cells[topology]
    new = [each for each in workloads if (topology, each.id) not in with_reference]
    starts = (planned.first_runs if new else 1) if starts_servers else 0
    return TopologyWork(
        topology=topology,
        starts=starts,
        runs=(*workloads, *new * (starts - 1)) * planned.repeats,
        other_tests=topology in planned.other_tests,
    )


def _with_shared_starts(work: Sequence[TopologyWork], system: System) -> Sequence[TopologyWork]:
    """Return *work* with shared starts counted only for the first topology of their group."""
    if not system.cluster.share_engines:
        return work
    topologies = [Topology.parse(each.topology) for each in work]
    groups = sharing_groups(topologies, system)
    starts_of = {each.topology: each.starts for each in work}
    counted = []
    for each in work:
        group = [topology.id for topology in groups.get(each.topology, ())]
        starts = each.starts if not group else max(starts_of[name] for name in group)
        counted.append(replace(each, starts=starts if group[:1] in ([], [each.topology]) else 0))
    return counted


def past_sessions(runs: Path, system: str) -> tuple[PastSession, ...]:
    """Return records and times of the newest sessions of *system*, without unreadable ones."""
    sessions = []
    for stored in islice(stored_sessions(runs, system=system, unreadable=[]), SESSIONS):
        try:
            times = load_times(runs / stored.run_id)
        except ConfigError:
            times = None
        sessions.append(PastSession(records=stored.records, times=times))
    return tuple(sessions)


def cells_with_reference(system: System, project: Project) -> Collection[Key]:
    """Return the cells that have a reference, as far as known before nodes are acquired.

    :raises ConfigError: if the baseline cannot be used.
    """
    evidence = Evidence(
        system=system,
        provenance=provenance_before(system, project.rootdir),
        nodes_known=backend_of(system).knows_hardware,
        session=SessionRef(id="plan"),
        runs=project.runs,
        state=state_folder(),
        rootdir=project.rootdir,
    )
    return frozenset(key for key, references in evidence.references.items() if references)
