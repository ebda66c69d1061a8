"""What a session will take, from the runs folder and the baseline, before anything starts."""

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
"""Earlier sessions that are looked at, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a session is asked to measure."""

    cells: Mapping[str, Sequence[Workload]]
    """Workloads by topology."""
    other_tests: Collection[str]
    """Topologies whose servers other tests ask too."""
    repeats: int
    """Runs of a cell on each start of its servers."""
    first_runs: int
    """Starts on which a cell without a reference is measured."""


def forecast_session(
    system: System, asked: Asked, *, runs: Path, known: Collection[Key]
) -> Forecast | None:
    """Return what a session will take; None of a system on which nothing takes time.

    :param runs: folder of earlier sessions.
    :param known: cells that have a reference.
    """
    if system.simulated or system.figures is not None:
        return None
    backend, cluster = backend_of(system), system.cluster
    work = [_work(topology, asked, known, backend.starts_servers) for topology in asked.cells]
    return forecast(
        _with_shared_starts(work, system),
        past_sessions(runs, system.name),
        client_kind=backend.client_kind(system),
        gpus=cluster.nodes * cluster.gpus_per_node,
        held=held_by(system, nodes=cluster.nodes if backend.starts_servers else 0),
    )


def _work(
    topology: str, asked: Asked, known: Collection[Key], starts_servers: bool
) -> TopologyWork:
    workloads = asked.cells[topology]
    new = [each for each in workloads if (topology, each.id) not in known]
    starts = (asked.first_runs if new else 1) if starts_servers else 0
    return TopologyWork(
        topology=topology,
        starts=starts,
        runs=(*workloads, *new * (starts - 1)) * asked.repeats,
        other_tests=topology in asked.other_tests,
    )


def _with_shared_starts(work: Sequence[TopologyWork], system: System) -> Sequence[TopologyWork]:
    """Count the starts that topologies share with their first one only."""
    if not system.cluster.share_engines:
        return work
    topologies = [Topology.parse(each.topology) for each in work]
    groups = sharing_groups(topologies, system)
    most = {each.topology: each.starts for each in work}
    counted = []
    for each in work:
        group = [topology.id for topology in groups.get(each.topology, ())]
        starts = each.starts if not group else max(most[name] for name in group)
        counted.append(replace(each, starts=starts if group[:1] in ([], [each.topology]) else 0))
    return counted


def past_sessions(runs: Path, system: str) -> tuple[PastSession, ...]:
    """Return what the newest sessions of *system* left; what cannot be read is left out."""
    found = []
    for stored in islice(stored_sessions(runs, system=system, unreadable=[]), SESSIONS):
        try:
            times = load_times(runs / stored.run_id)
        except ConfigError:
            times = None
        found.append(PastSession(records=stored.records, times=times))
    return tuple(found)


def known_cells(system: System, project: Project) -> Collection[Key]:
    """Return the cells that have a reference, as far as that is known before nodes are acquired.

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
