"""The simulated deployment: computes runs and writes the same records as real ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.placement import rotated
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.building import RunFacts
from pytest_pdserve.results.building import build_record
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.simulation.constants import KV_BYTES_PER_TOKEN
from pytest_pdserve.simulation.constants import check_fitted
from pytest_pdserve.simulation.options import SimulationSpec
from pytest_pdserve.values.model import KvShape
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

if TYPE_CHECKING:
    from pytest_pdserve.simulation.model import SimulatedRun

SIMULATED = "simulated: a model fitted to one article's means; no server ran"
"""Notice that is shown with all simulated numbers."""

REPLAYED = "prompt tokens came from prefix caches, as the sweep's order and one seed leave them"
"""Note on prefix-cache hits that the system file requests; their number is in the counts."""


@dataclass(slots=True, kw_only=True)
class SimulatedDeployment:
    """A topology on simulated nodes."""

    topology: Topology
    system: System
    placement: Placement
    """The node of each instance."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Empty, as nothing is installed."""
        return {}

    def measure(
        self,
        workload: Workload,
        *,
        repeat: int,
        start: int | None,
        store: RunStore,
        provenance: Provenance,
    ) -> tuple[Record, Path]:
        """Compute *workload* once and write its record, marked as simulated.

        :param start: number of the simulated start of the servers, from 0.
        :returns: the record, and its file.
        :raises ConfigError: if the workload cannot be simulated.
        :raises StoreError: if the record cannot be written.
        """
        from pytest_pdserve.simulation.model import simulate

        started, began = datetime.now(UTC), time.monotonic()
        system, placement = self.system, self.placement
        run = simulate(placement, workload, system, repeat=repeat)
        observation = observation_of(self, workload, run)
        facts = RunFacts(
            system=system.name,
            repeat=repeat,
            start=start,
            started_at=utc_text(started),
            finished_at=utc_text(datetime.now(UTC)),
            endpoint="simulated",
            timings_s={"simulation": time.monotonic() - began, "bench": run.result.duration_s},
            nodes=placement.nodes,
            simulated=True,
        )
        findings = findings_of(observation, system)
        return build_record(observation, facts, provenance, store, findings=findings)

    def replace_servers(self, other: SimulatedDeployment) -> None:
        """Refer to the servers of *other* from now on, which may be on other nodes."""
        self.placement = other.placement


@contextlib.contextmanager
def deploy_simulated(
    allocation: Allocation,
    topology: Topology,
    system: System,
    *,
    logs: Path,
    progress: Progress,
    rotation: int = 0,
) -> Iterator[SimulatedDeployment]:
    """Place *topology* on the nodes of *allocation*, without starting anything.

    :raises PlacementError: if it does not fit, or the model does not support it.
    """
    del logs, progress
    placement = place(
        topology,
        tuple(host.name for host in rotated(allocation.hosts, rotation)),
        system.cluster.gpus_per_node,
        default_tp=system.tensor_parallel,
    )
    check_fitted(placement)
    yield SimulatedDeployment(topology=topology, system=system, placement=placement)


def observation_of(
    deployment: SimulatedDeployment, workload: Workload, run: SimulatedRun
) -> Observation:
    """Return the observation of a simulated run."""
    return Observation(
        topology=deployment.topology,
        workload=workload,
        result=run.result,
        served=run.served,
        instances=len(deployment.placement.endpoints),
        kv_shape=KvShape(bytes_per_token=KV_BYTES_PER_TOKEN),
        client_cpu=0.0,
        sanity=deployment.system.sanity,
    )


def findings_of(observation: Observation, system: System) -> tuple[Finding, ...]:
    """Return a note that the run was simulated, and the findings of the sanity checks.

    If the system replays the article's sweep, prefix-cache hits are intended, so only noted.
    """
    findings: Sequence[Finding] = check_sanity(observation)
    if system.table("simulation", SimulationSpec).replay:
        findings = [
            replace(f, severity="note", message=REPLAYED) if f.check == "prefix_cache" else f
            for f in findings
        ]
    return (Finding(check="simulated", severity="note", message=SIMULATED), *findings)
