"""Nodes that do not exist."""

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
    """Nodes in name only: nothing can be started on them."""

    kind = "simulated"

    def __init__(self, system: System, hosts: tuple[Host, ...]) -> None:
        self._spec = system.table("simulation", SimulationSpec)
        self.hosts = hosts
        self.client_node = hosts[0].name
        self.endpoint: Endpoint | None = None
        self.containment = containment_of(system, hosts, image="", run_id="", run_folder="")

    def claim(self, node: str, port: int) -> bool:
        """Every port is free where nobody listens."""
        return True

    def start(
        self, commands: Sequence[Command], *, logs: Sequence[Path], secrets: Mapping[str, str]
    ) -> tuple[Process, ...]:
        """Refuse.

        :raises LaunchError: always.
        """
        raise LaunchError(f"{commands[0].name} cannot be started: the nodes are simulated")

    def stop(self, processes: Sequence[Process]) -> None:
        """Nothing runs."""

    def check(self, *, fresh: bool = False) -> None:
        """Nothing can be lost."""

    def find_versions(self) -> Mapping[str, str]:
        """Nothing is installed."""
        return {}

    def describe_nodes(self) -> Mapping[str, str]:
        """The model's constants, which decide how fast the nodes serve."""
        constants = {name: f"{value:g}" for name, value in asdict(fitted()).items()}
        return {"simulated": "yes", "replay": str(self._spec.replay)} | constants

    def watching_gpus(self) -> AbstractContextManager[GpuWatch]:
        """Nothing: GPUs of other machines are not watched."""
        return unwatched()

    def read_fabric(self) -> Sequence[FabricState]:
        """Nothing: simulated nodes have no interfaces."""
        return ()

    def diagnose(self) -> None:
        """Nothing to ask."""

    def describe(self) -> Mapping[str, Any]:
        """What records keep of these nodes."""
        return {"kind": self.kind, "night": self._spec.night}

    def release(self) -> None:
        """Nothing is held."""
