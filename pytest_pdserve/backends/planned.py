"""The commands that would run for a topology, before any node is acquired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import PurePosixPath

from pytest_pdserve.backends.passing import check_passed
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.router_flags import check_router_args
from pytest_pdserve.plan.bench import bench_command
from pytest_pdserve.plan.bench import worker_command
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import containment_of
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.values.system import CLIENTS_OF_VLLM
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

RUN_FOLDER = "{run folder}"
"""Placeholder of the session's folder; the allocation fills in other words in braces."""
SEED = "{seed}"
"""Placeholder of the client's seed, which differs in every session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The planned commands of a topology."""

    launch: Launch
    """Instances and router."""
    client: tuple[Command, ...]
    """Client commands of the first run, one for each workload of the sweep.

    For the client ``vllm``, the command of its process comes first; the others show its runs.
    """

    @property
    def commands(self) -> Sequence[Command]:
        """All commands that would run."""
        return (*self.launch.commands, *self.client)


def plan_topology(system: System, topology: Topology, *, starting: bool = False) -> Planned:
    """Plan *topology* on the nodes of *system* as known before they are acquired.

    :param starting: whether servers will start, so that ports in use are skipped.
    :raises PlacementError: if it does not fit.
    :raises ConfigError: if the router does not have one of its arguments, or a variable of
        ``pass_env`` is not set.
    """
    backend = backend_of(system)
    backend.serves(topology, system)
    if starting:
        check_passed(system)
    hosts = backend.hosts(system)
    spec = system.container
    containment = containment_of(
        system,
        hosts,
        image=spec.tag or ("{image}" if spec.image_source == "tarball" else spec.image),
        run_id="{run}",
        run_folder=RUN_FOLDER,
    )
    launch = plan_launch(
        topology,
        system,
        hosts=hosts,
        claim=backend.port_claim(system, starting=starting),
        containment=containment,
    )
    if launch.router is not None:
        check_router_args(system)
    client = _client_commands(system, topology, node=hosts[0].name, url=launch.url)
    contained = backend.client_kind(system) in CLIENTS_OF_VLLM
    return Planned(launch=launch, client=containment.wrap(client) if contained else tuple(client))


def _client_commands(system: System, topology: Topology, *, node: str, url: str) -> list[Command]:
    folder = PurePosixPath(RUN_FOLDER, topology.id)
    kind = backend_of(system).client_kind(system)
    commands = [
        bench_command(
            workload,
            system,
            kind,
            node=node,
            base_url=url,
            seed=SEED,
            result=folder / f"{workload.id}.0.bench.json",
        )
        for workload in system.sweep.workloads()
    ]
    if kind != "vllm":
        return commands
    worker = worker_command(
        system,
        node=node,
        script=f"{RUN_FOLDER}/client/worker-1/vllm_worker.py",
        folder=f"{RUN_FOLDER}/client/worker-1",
    )
    return [worker, *(replace(each, name=f"{each.name}, by the client") for each in commands)]
