"""The allocation of simulated nodes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.hosts.gpu_watch import GpuWatch
from pytest_pdserve.backends.hosts.gpu_watch import unwatched
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import containment_of
from pytest_pdserve.plan.host import Host
from pytest_pdserve.simulation.constants import fitted
from pytest_pdserve.simulation.options import SimulationSpec
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.fabric import FabricState
from pytest_pdserve.values.system import System


class SimulatedAllocation:
    """An allocation of simulated nodes, on which nothing can be started."""

    kind = "simulated"

    def __init__(self, system: System, hosts: tuple[Host, ...]) -> None:
        self._spec = system.table("simulation", SimulationSpec)
        self.hosts = hosts
        self.client_node = hosts[0].name
        self.endpoint: Endpoint | None = None
        self.containment = containment_of(system, hosts, image="", run_id="", run_folder="")

    def claim(self, node: str, port: int) -> bool:
        """Return True: all ports of simulated nodes are free."""
        return True

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[Process, ...]:
        """Raise LaunchError.

        :raises LaunchError: always.
        """
        raise LaunchError(f"{commands[0].name} cannot be started: the nodes are simulated")

    def stop(self, processes: Sequence[Process]) -> None:
        """Do nothing, as there are no processes."""

    def check(self, *, fresh: bool = False) -> None:
        """Do nothing, as simulated nodes cannot fail."""

    def find_versions(self) -> Mapping[str, str]:
        """Return no versions, as nothing is installed."""
        return {}

    def describe_nodes(self) -> Mapping[str, str]:
        """Return the constants of the model, which determine the speed of the simulated nodes."""
        constants = {name: f"{value:g}" for name, value in asdict(fitted()).items()}
        return {"simulated": "yes", "replay": str(self._spec.replay)} | constants

    def watching_gpus(self) -> AbstractContextManager[GpuWatch]:
        """Return a watch without GPUs."""
        return unwatched()

    def read_fabric(self) -> Sequence[FabricState]:
        """Return no states, as simulated nodes have no interfaces."""
        return ()

    def diagnose(self) -> None:
        """Do nothing, as simulated nodes have no state to diagnose."""

    def describe(self) -> Mapping[str, Any]:
        """Return what records store about these nodes."""
        return {"kind": self.kind, "night": self._spec.night}

    def release(self) -> None:
        """Do nothing, as nothing is acquired."""
