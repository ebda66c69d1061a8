"""The backend ``local``: every node is a slot of this machine, with its own ports."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import psutil

from pytest_pdserve.backends.backend import Backend
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.fabric.checking import check_libraries
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.hosts.facts import describe_hardware
from pytest_pdserve.backends.hosts.facts import list_gpus
from pytest_pdserve.backends.hosts.versions import find_versions
from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.backends.local.allocation import slots
from pytest_pdserve.backends.local.examining import examine_machine
from pytest_pdserve.backends.local.gpus import check_gpus
from pytest_pdserve.backends.local.gpus import holding_gpus
from pytest_pdserve.backends.local.gpus import planned_gpus
from pytest_pdserve.backends.nodes import with_spares
from pytest_pdserve.backends.programs import check_containers
from pytest_pdserve.backends.programs import check_nixl
from pytest_pdserve.backends.programs import check_program
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.ports import Claim
from pytest_pdserve.plan.ports import in_memory_claim
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.system import System

__all__ = ["LocalAllocation", "LocalBackend", "slots"]


class LocalBackend(Backend):
    """Runs servers on slots of this machine."""

    name = "local"
    knows_hardware = True
    serves_from_here = True

    def hosts(self, system: System) -> tuple[Host, ...]:
        """Return the slots: on loopback, each with its share of the cores and its GPUs.

        If this machine has too few GPUs, consecutive numbers are used for planning.
        """
        gpus = planned_gpus(with_spares(system), os.environ)
        return slots(system, os.cpu_count() or 1, gpus)[: system.cluster.nodes]

    def port_claim(self, system: System, *, starting: bool) -> Claim:
        """Return a function that tests whether a port is free on this machine; reserves none."""
        fresh = in_memory_claim(one_machine=True)
        if not starting:
            return fresh

        def claim(node: str, port: int) -> bool:
            with socket.socket() as probe:
                try:
                    probe.bind(("0.0.0.0", port))  # noqa: S104 - taken on any address is taken
                except OSError:
                    return False
            return fresh(node, port)

        return claim

    def examine(self, system: System) -> Sequence[Prerequisite]:
        """Return the rows of this machine: software, GPUs, memory, ports."""
        return examine_machine(system)

    def check_launch(self, system: System, launch: Launch) -> None:
        """Raise if software is missing, or the instances do not fit into free memory."""
        if system.container.contained:
            check_containers(system)
        else:
            check_program(system, "vllm", needed_for=f"system {system.name!r}")
            if launch.router is not None:
                check_program(system, "router", needed_for=f"system {system.name!r}")
            if launch.placement.topology.disaggregated:
                check_nixl(system)
                check_libraries(system)
        check_gpus(with_spares(system), os.environ)
        check_memory(system, len(launch.instances))

    @contextlib.contextmanager
    def acquire(self, system: System, request: Request) -> Iterator[LocalAllocation]:
        """Acquire the slots of this machine; processes on them are ended when the block ends."""
        with holding_gpus(with_spares(system), os.environ) as gpus:
            allocation = LocalAllocation(
                system, folder=request.folder, progress=request.progress, gpus=gpus
            )
            try:
                if system.container.contained:
                    with Heartbeat(request.progress, "loading the image") as progress:
                        allocation.make_image_present(progress)
                yield allocation
            finally:
                allocation.release()

    def has_gpus(self, system: System) -> bool | None:
        """Return whether servers have GPUs, as ``[cluster] device`` sets it.

        Without it, whether this machine has GPUs and servers a PyTorch that is not for CPUs only.
        """
        if system.cluster.device is not None:
            return system.cluster.device == "gpu"
        on_cpus = find_versions().get("torch", "").endswith("+cpu")
        return not (on_cpus and not system.container.contained) and bool(list_gpus())

    def describe_hardware(self, system: System) -> Mapping[str, str]:
        """Return this machine's hardware."""
        gpus = planned_gpus(system, os.environ)
        model = {"gpu": gpus[0].gpu.name} if gpus and gpus[0].gpu.name else {}
        return {**describe_hardware(), **model}


def check_memory(system: System, instances: int, available_gib: float | None = None) -> None:
    """Raise if *instances* do not fit into the free memory.

    :raises PlacementError: with both numbers.
    """
    if available_gib is None:
        available_gib = psutil.virtual_memory().available / 2**30
    needed = instances * system.cluster.memory_per_instance_gib
    if needed > available_gib:
        raise PlacementError(
            f"{instances} instances of {system.name} need {needed:.1f} GiB "
            f"({system.cluster.memory_per_instance_gib:g} GiB each), but {available_gib:.1f} GiB "
            "of memory are free; choose a topology with fewer instances"
        )
