"""What a backend is: all that depends on where servers come from."""

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
from pytest_pdserve.plan.ports import unclaimed
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

Deployer = Callable[..., contextlib.AbstractContextManager[Any]]
"""Stands a topology up: called as ``serving.deployment.stand_up`` is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a session asks of a backend beside the system."""

    folder: Path
    """The session's own, for what the backend keeps; on a cluster, on a file system that nodes
    share. It may not exist."""
    progress: Progress
    """Told what is being waited for."""
    job_id: str | None = None
    """A running job whose nodes are used; None to ask for one."""


class Backend:
    """Provides nodes for one session; a backend overrides what it does differently.

    ``[cluster] kind`` of a system file names it. What a method does not override holds for servers
    that the session starts itself, on nodes that are known only once they are acquired.
    """

    name: str
    """As in ``[cluster] kind``."""
    tables: Mapping[str, type] = {}
    """Tables of the system file that only this backend reads, and the dataclass of each."""
    unread: tuple[str, ...] = ()
    """Keys of other tables that it does not read, e.g. ``ports`` or ``cluster.bind_host``: a
    system file that has one is refused."""
    simulated = False
    """Whether no server ever runs."""
    starts_servers = True
    """Whether the session starts the servers, knows their nodes and can start them again."""
    knows_hardware = False
    """Whether :meth:`describe_hardware` is that of the nodes before they are acquired."""
    serves_from_here = False
    """Whether servers that run in no container run from the environment of this Python: versions
    that are installed here are then theirs."""
    takes_jobs = False
    """Whether it can use the nodes of a job that runs already (``--pdserve-job-id``)."""
    deployer: Deployer | None = None
    """Stands topologies up; None starts commands on the allocation's nodes."""

    def check_file(self, system: System) -> None:
        """Refuse what no session could ever measure, when the system file is read.

        :raises ConfigError: without the file's name, which is put before it.
        """
        del system

    def check(self, system: System) -> None:
        """Refuse a system whose nodes cannot be acquired by this installation.

        :raises ConfigError: with what is missing, and what to do.
        """

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return what this machine has of what *system* needs, a row for each thing.

        ``pdserve doctor`` shows it. Nothing is started, submitted or written, and questions to
        others are bounded in time. What no override looks at: whether :meth:`check` passes.
        """
        what, needed = f"backend {self.name}", "installed"
        try:
            self.check(system)
        except ConfigError as error:
            advice = f"Mend this: {error}."
            return [required(what, found="refuses", needed=needed, there=False, advice=advice)]
        return [required(what, found="installed", needed=needed, there=True, advice="")]

    def check_client(self, system: System) -> None:
        """Refuse a system whose benchmark client cannot be started, if that can be seen from here.

        It is called where something will be measured.

        :raises ConfigError: naming what is missing, and what to do.
        """
        del system

    def client_kind(self, system: System) -> ClientKind:
        """Return the kind of the benchmark client: what the system file says, else ``vllm``."""
        return system.bench.client or "vllm"

    def check_launch(self, system: System, launch: Launch) -> None:
        """Refuse what cannot be started now, before anything is.

        :raises PlacementError: with both numbers.
        """

    def hosts(self, system: System) -> tuple[Host, ...]:
        """Return the nodes as planning knows them; what is not known yet stands in braces."""
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
        """Return what tells planning whether a port is free.

        :param starting: whether servers will really start; if not, only the plan's own ports count.
        """
        del starting
        return unclaimed(one_machine=system.cluster.shared_host)

    def acquire(
        self, system: System, request: Request
    ) -> contextlib.AbstractContextManager[Allocation]:
        """Acquire nodes; they are released on leaving, whatever happens.

        :raises AllocationError: if they cannot be had, or are lost.
        """
        raise NotImplementedError

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return what is known of the hardware before nodes are acquired."""
        raise NotImplementedError

    def has_gpus(self, system: System) -> bool | None:
        """Whether the nodes have GPUs, as far as that is known before they are acquired.

        :returns: None where it is not: a CPU may be a slot that counts as a GPU.
        """
        del system
        return None

    def at_start(self, system: System, number: int) -> System:
        """Return *system* as it is at one of several starts, whose noise is its own.

        :param number: of the start, counted from 0. Machines that exist have noise already.
        """
        del number
        return system

    def plan_lines(self, system: System) -> Sequence[str]:
        """Return what ``pdserve plan`` says of how nodes are asked for, as comment lines."""
        del system
        return ()

    def night(self, system: System) -> int | None:
        """Return the night that *system* names, where it is simulated; None for a real one."""
        del system
        return None

    def serves(self, topology: Topology, system: System) -> None:
        """Refuse a topology that this backend cannot serve.

        :raises ConfigError: naming it.
        """
        del topology, system
