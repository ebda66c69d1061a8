"""Rows of ``pdserve doctor`` about the machine: GPUs, fabric, container engine, memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from pytest_pdserve.backends.hosts.facts import run_quietly
from pytest_pdserve.values.prerequisites import Prerequisite
from pytest_pdserve.values.prerequisites import required
from pytest_pdserve.values.prerequisites import unneeded
from pytest_pdserve.values.system import System

GPUS, FABRIC = "GPUs and driver", "fabric (EFA)"
ENGINE, MEMORY = "container engine", "free memory"
SLURM_COMMANDS = "Slurm commands"
_DEVICES = Path("/sys/class/infiniband")
_FI_INFO = ("fi_info", "/opt/amazon/efa/bin/fi_info")
_ENGINES = ("docker", "podman", "enroot")


def gpus_found(gpus: Sequence[str] | None) -> str:
    """Return number, model and driver of *gpus* as one text.

    :param gpus: as :func:`~..hosts.facts.list_gpus` returns them.
    """
    if not gpus:
        return "none that nvidia-smi shows"
    model, _, driver = gpus[0].partition(",")
    return f"{len(gpus)} x {model.strip()}, driver {driver.strip()}"


def gpus_row(needed: int, gpus: Sequence[str] | None) -> Prerequisite:
    """Return the row of GPUs and driver.

    :param needed: GPUs that servers of the system take on this machine; 0 if none.
    :param gpus: as :func:`~..hosts.facts.list_gpus` returns them.
    """
    if not needed:
        return unneeded(GPUS, gpus_found(gpus))
    return required(
        GPUS,
        found=gpus_found(gpus),
        needed=f"{needed} GPUs",
        there=len(gpus or ()) >= needed,
        advice="Make `nvidia-smi` list them all, or choose a system with fewer by --system.",
    )


def names_efa(system: System) -> bool:
    """Return whether the system's KV caches must move over EFA."""
    provider = {**system.env, **system.pd_env}.get("FI_PROVIDER", "")
    return system.kv_transfer.backend == "LIBFABRIC" and "efa" in provider


def fabric_row(needed: bool, devices: Sequence[str], efa: bool | None) -> Prerequisite:
    """Return the row of the fabric of this machine.

    :param needed: whether servers here must use EFA.
    :param devices: RDMA devices that the kernel shows.
    :param efa: whether ``fi_info`` shows EFA; None where there is no ``fi_info``.
    """
    shown = f"{len(devices)} RDMA devices" if devices else "no RDMA device"
    fi_info = {None: "no fi_info", True: "fi_info shows efa", False: "fi_info shows no efa"}[efa]
    found = f"{shown}, {fi_info}"
    if not needed:
        return unneeded(FABRIC, found)
    return required(
        FABRIC,
        found=found,
        needed="FI_PROVIDER names efa",
        there=bool(devices) and efa is not False,
        advice="Install the EFA driver so that `fi_info -p efa` lists devices, or change "
        "FI_PROVIDER in [env].",
    )


def fabric_facts() -> tuple[tuple[str, ...], bool | None]:
    """Return the RDMA devices that the kernel shows, and whether ``fi_info`` shows EFA."""
    devices = tuple(sorted(path.name for path in _DEVICES.glob("*")))
    program = next((found for name in _FI_INFO if (found := shutil.which(name))), None)
    efa = None if program is None else run_quietly([program, "-p", "efa"]) is not None
    return devices, efa


def engine_row(system: System) -> Prerequisite:
    """Return the row of the container engine on this machine, where servers run on it."""
    there = [name for name in _ENGINES if shutil.which(name)]
    engine = system.container.engine
    if not engine:
        return unneeded(ENGINE, f"{', '.join(there)} on PATH" if there else "none")
    found, answers = f"no {engine} on PATH", engine in there
    if answers:
        found = f"{engine} on PATH"
        if system.container.supervised:
            answers = run_quietly([engine, "version"]) is not None
            found = f"{engine} answers" if answers else f"{engine}, which does not answer"
    return required(
        ENGINE,
        found=found,
        needed=f"container.kind {system.container.kind}",
        there=answers,
        advice=f"Install {engine} and start it, or choose another container.kind.",
    )


def memory_row(system: System, available_gib: float | None = None) -> Prerequisite:
    """Return the row of memory that is free on this machine, for one instance per node."""
    if available_gib is None:
        available_gib = psutil.virtual_memory().available / 2**30
    found, each = f"{available_gib:.1f} GiB", system.cluster.memory_per_instance_gib
    if not each:
        return unneeded(MEMORY, found)
    needed = system.cluster.nodes * each
    return required(
        MEMORY,
        found=found,
        needed=f"{needed:g} GiB ({system.cluster.nodes} x {each:g})",
        there=available_gib >= needed,
        advice="End what uses memory, or choose a topology with fewer instances.",
    )
