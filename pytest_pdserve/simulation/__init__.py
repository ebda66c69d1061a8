"""The simulated backend: disaggregated serving computed by a model fitted to the article."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import replace

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.examining.software import distribution_row
from pytest_pdserve.simulation.allocation import SimulatedAllocation
from pytest_pdserve.simulation.constants import fitted
from pytest_pdserve.simulation.deployment import deploy_simulated
from pytest_pdserve.simulation.options import SimulationSpec
from pytest_pdserve.simulation.options import check_size
from pytest_pdserve.simulation.options import engine_limits
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.system import UNNAMED_CLIENT
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import System


class SimulatedBackend(Backend):
    """The backend of simulated nodes, on which no server runs."""

    name = "simulated"
    tables: Mapping[str, type] = {"simulation": SimulationSpec}
    unread = (
        *("cluster.shared_host", "cluster.memory_per_instance_gib", "cluster.bind_host"),
        "cluster.spare_nodes",
        *("model.serve_args", "programs", "container", "ports", "kv_transfer", "limits"),
        *("env", "pd_env", "pass_env", "router", "bench", "transfer"),
    )
    simulated = True
    knows_hardware = True
    deployer = staticmethod(deploy_simulated)

    def client_kind(self, system: System) -> ClientKind:
        """Return the client whose figures the model was fitted to: an unnamed one."""
        del system
        return UNNAMED_CLIENT

    def check(self, system: System) -> None:
        """Raise ConfigError without simpy, or for unsupported arguments of the engine."""
        for role in ROLES:
            engine_limits(system.serve_args(role))
        if importlib.util.find_spec("simpy") is None:
            raise ConfigError(
                f"system {system.name!r} needs simpy, which is not installed; "
                "install pytest-pdserve[simulate]"
            )

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return the prerequisites: the simpy package; no machine, as there is no server."""
        return [distribution_row("simpy", extra="simulate")]

    def check_file(self, system: System) -> None:
        """Raise ConfigError for excessive drift, and for loads that would take hours to compute."""
        system.table("simulation", SimulationSpec).check()
        for load in system.sweep.workloads():
            check_size(load)

    @contextlib.contextmanager
    def acquire(self, system: System, request: Request) -> Iterator[Allocation]:
        """Yield an allocation of simulated nodes."""
        yield SimulatedAllocation(system, self.hosts(system))

    def night(self, system: System) -> int:
        """Return the number of the night in the system file."""
        return system.table("simulation", SimulationSpec).night

    def at_start(self, system: System, number: int) -> System:
        """Return *system* with another noise seed for each start, and the same loads."""
        spec = system.table("simulation", SimulationSpec)
        changed = replace(spec, noise_seed=number)
        return replace(system, tables={**system.tables, "simulation": changed})

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return the constants of the model, which determine the speed of the simulated nodes."""
        replay = system.table("simulation", SimulationSpec).replay
        constants = {name: f"{value:g}" for name, value in asdict(fitted()).items()}
        return {"simulated": "yes", "replay": str(replay)} | constants
