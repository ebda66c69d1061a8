"""The backend ``slurm``: nodes of a Slurm cluster, in a new job or in a running one."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.hosts.facts import describe_hardware
from pytest_pdserve.backends.slurm.controller import missing_programs
from pytest_pdserve.backends.slurm.options import Preflight
from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.slurm.options import check_cluster
from pytest_pdserve.backends.slurm.planning import job_parameters
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.system import System


class SlurmBackend(Backend):
    """Runs servers on nodes of a Slurm job."""

    name = "slurm"
    tables: Mapping[str, type] = {"slurm": SlurmSpec, "preflight": Preflight}
    takes_jobs = True

    def check_file(self, system: System) -> None:
        """Raise if the file has an address that other nodes cannot reach, or too many GPUs."""
        check_cluster(system.cluster, system.table("preflight", Preflight))

    def check(self, system: System) -> None:
        """Raise if submitit or Slurm's commands are missing."""
        if importlib.util.find_spec("submitit") is None:
            raise ConfigError(
                f"system {system.name!r} needs submitit, which is not installed; "
                "install pytest-pdserve[slurm]"
            )
        if missing := missing_programs():
            raise ConfigError(
                f"system {system.name!r} needs Slurm's commands, but {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not on PATH; run on a login node, or "
                "choose a local system by --system"
            )

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return the rows of this login node, and of what nodes must have."""
        from pytest_pdserve.backends.slurm.examining import examine_cluster

        return examine_cluster(system)

    @contextlib.contextmanager
    def acquire(self, system: System, request: Request) -> Iterator[Allocation]:
        """Acquire the nodes of a new job, or of a running one."""
        from pytest_pdserve.backends.slurm.job import acquired

        with acquired(
            system, folder=request.folder, job=request.job_id, progress=request.progress
        ) as nodes:
            yield nodes

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return the login node's hardware: that of the nodes is not known yet."""
        return describe_hardware()

    def has_gpus(self, system: System) -> bool | None:
        """Return whether ``[preflight] gpus`` or ``[slurm] gres`` requires GPUs; else None."""
        required = system.table("preflight", Preflight).gpus
        if required is not None:
            return required > 0
        return True if "gpu" in (system.table("slurm", SlurmSpec).gres or "") else None

    def plan_lines(self, system: System) -> Sequence[str]:
        """Return the parameters of the job, as lines."""
        spec = system.table("slurm", SlurmSpec)
        nodes = system.cluster.held_nodes + spec.client_node
        parameters = job_parameters(spec, name="pdserve-{user}@{host}-{run}", nodes=nodes)
        return ["sbatch, by submitit", *(f"  {k} = {v}" for k, v in parameters.items())]
