"""The base class of backends: all that depends on where servers come from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.ports import Claim
from pytest_pdserve.plan.ports import in_memory_claim
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

Deployer = Callable[..., contextlib.AbstractContextManager[Any]]
"""Deploys a topology; has the signature of ``serving.deployment.stand_up``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Arguments that a session passes to a backend, besides the system."""

    folder: Path
    """The session's folder for files of the backend; on a cluster, on a file system that nodes
    share. It may not exist yet."""
    progress: Progress
    job_id: str | None = None
    """ID of a running job whose nodes are used; None to submit a new job."""


class Backend:
    """Provides nodes for one session; a backend overrides what it does differently.

    ``[cluster] kind`` of a system file names it. The defaults are for servers that the session
    starts itself, on nodes that are known only once they are acquired.
    """

    name: str
    """As in ``[cluster] kind``."""
    tables: Mapping[str, type] = {}
    """Tables of the system file that only this backend reads, and the dataclass of each."""
    unread: tuple[str, ...] = ()
    """Keys of other tables that it does not read, e.g. ``ports`` or ``cluster.bind_host``: a
    system file that has one is rejected."""
    simulated = False
    """True if measurements are simulated, without any server."""
    starts_servers = True
    """True if the session starts the servers, knows their nodes and can restart them."""
    knows_hardware = False
    """True if :meth:`describe_hardware` describes the nodes before they are acquired."""
    serves_from_here = False
    """True if servers without a container run from the environment of this Python, so that the
    versions installed here are theirs."""
    takes_jobs = False
    """True if it can use the nodes of a running job (``--pdserve-job-id``)."""
    deployer: Deployer | None = None
    """Deploys topologies; None starts commands on the allocation's nodes."""

    def check_file(self, system: System) -> None:
        """Raise if no session could ever measure *system*; called when its file is read.

        :raises ConfigError: without the file's name, which the caller adds.
        """
        del system

    def check(self, system: System) -> None:
        """Raise if this installation cannot acquire the nodes of *system*.

        :raises ConfigError: with what is missing, and what to do.
        """

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return one row for each thing that *system* needs of this machine.

        ``pdserve doctor`` shows the rows. Nothing is started, submitted or written, and queries to
        other services have a timeout. The default returns one row: whether :meth:`check` passes.
        """
        what, needed = f"backend {self.name}", "installed"
        try:
            self.check(system)
        except ConfigError as error:
            advice = f"Fix this: {error}."
            return [required(what, found="refuses", needed=needed, there=False, advice=advice)]
        return [required(what, found="installed", needed=needed, there=True, advice="")]

    def check_client(self, system: System) -> None:
        """Raise if the benchmark client of *system* cannot start, as far as this machine shows.

        Called only before a measurement.

        :raises ConfigError: naming what is missing, and what to do.
        """
        del system

    def client_kind(self, system: System) -> ClientKind:
        """Return the kind of the benchmark client: that of the system file, else ``vllm``."""
        return system.bench.client or "vllm"

    def check_launch(self, system: System, launch: Launch) -> None:
        """Raise if *launch* cannot be started now; called before anything is started.

        :raises PlacementError: with both numbers.
        """

    def hosts(self, system: System) -> tuple[Host, ...]:
        """Return the nodes as planned; values not known yet are placeholders in braces."""
        return tuple(
            Host(
                name=f"node{n}",
                address=f"{{node{n}.address}}",
                interface=f"{{node{n}.interface}}",
                devices=system.container.devices,
            )
            for n in range(system.cluster.nodes)
        )

    def port_claim(self, system: System, *, starting: bool) -> Claim:
        """Return the function with which planning reserves a port.

        :param starting: whether servers will really start; if not, only the ports of the plan
            itself count as taken.
        """
        del starting
        return in_memory_claim(one_machine=system.cluster.shared_host)

    def acquire(
        self, system: System, request: Request
    ) -> contextlib.AbstractContextManager[Allocation]:
        """Acquire nodes; they are released when the block ends, also after an exception.

        :raises AllocationError: if the nodes are not available, or are lost.
        """
        raise NotImplementedError

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return what is known about the hardware before nodes are acquired."""
        raise NotImplementedError

    def has_gpus(self, system: System) -> bool | None:
        """Return whether the nodes have GPUs; None if unknown before they are acquired.

        A CPU slot may count as a GPU.
        """
        del system
        return None

    def at_start(self, system: System, number: int) -> System:
        """Return *system* for one of several starts; a simulated start has noise of its own.

        :param number: of the start, counted from 0.
        """
        del number
        return system

    def plan_lines(self, system: System) -> Sequence[str]:
        """Return comment lines for ``pdserve plan`` about how nodes are requested."""
        del system
        return ()

    def night(self, system: System) -> int | None:
        """Return the number of the simulated night; None for a real system."""
        del system
        return None

    def serves(self, topology: Topology, system: System) -> None:
        """Raise if this backend cannot serve *topology*.

        :raises ConfigError: naming it.
        """
        del topology, system
