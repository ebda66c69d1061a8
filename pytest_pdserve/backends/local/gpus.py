"""Chooses GPUs of this machine for a session, and locks them against other sessions."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.hosts.facts import process_text
from pytest_pdserve.backends.hosts.nvml import Gpu
from pytest_pdserve.backends.hosts.nvml import NoGpusError
from pytest_pdserve.backends.hosts.nvml import find_gpus
from pytest_pdserve.backends.local.refusals import Reason
from pytest_pdserve.backends.local.refusals import RefusedGpu
from pytest_pdserve.backends.local.refusals import held_by
from pytest_pdserve.backends.local.refusals import in_use
from pytest_pdserve.backends.local.refusals import refusals
from pytest_pdserve.plan.vllm import GPUS_VARIABLE
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import System

_PEER = struct.Struct("3i")
"""``struct ucred`` of the kernel: process, user, group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleGpu:
    """A GPU, or a MIG slice, that this session may use."""

    gpu: Gpu
    name: str
    """As in ``CUDA_VISIBLE_DEVICES``: a number, or the UUID of a slice."""


def slot_gpus(system: System) -> int:
    """Return how many GPUs of this machine the slots of *system* need; 0 if they are CPU slots."""
    cluster = system.cluster
    return cluster.nodes * cluster.gpus_per_node if cluster.device == "gpu" else 0


def visible_gpus(gpus: Sequence[Gpu], devices: str | None) -> tuple[VisibleGpu, ...]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` = *devices* makes visible, in its order.

    :param devices: numbers, or prefixes of UUIDs as CUDA accepts them; None shows all GPUs.
    :raises ConfigError: if one does not exist; CUDA would silently ignore it and all after it.
    """
    if devices is None:
        return tuple(_visible(gpu) for gpu in gpus)
    names = [name.strip() for name in devices.split(",") if name.strip()]
    if names in ([], ["-1"], ["NoDevFiles"]):
        return ()
    found: list[VisibleGpu] = []
    for name in names:
        matching = [gpu for gpu in gpus if _is_named(gpu, name)]
        if not matching:
            existing = ", ".join(_visible(gpu).name for gpu in gpus) or "none"
            raise ConfigError(
                f"{GPUS_VARIABLE} = {devices!r} names {name!r}, which is not a GPU of this machine "
                f"({existing}); change or unset it"
            )
        found += [_visible(gpu) for gpu in matching if _visible(gpu) not in found]
    return tuple(found)


def _visible(gpu: Gpu) -> VisibleGpu:
    return VisibleGpu(gpu=gpu, name=gpu.uuid if gpu.is_slice else str(gpu.index))


def _is_named(gpu: Gpu, name: str) -> bool:
    if name.isdecimal():
        return gpu.index == int(name)
    return gpu.uuid.startswith(name) or gpu.gpu_uuid.startswith(name)


def planned_gpus(system: System, environment: Mapping[str, str]) -> tuple[VisibleGpu, ...]:
    """Return the GPUs that the slots of *system* would have if all were free.

    If this machine has fewer, the result has placeholders with consecutive numbers.
    """
    needed = slot_gpus(system)
    if not needed:
        return ()
    try:
        visible = visible_gpus(find_gpus(), environment.get(GPUS_VARIABLE))
    except (NoGpusError, ConfigError):
        visible = ()
    if len(visible) >= needed:
        return visible[:needed]
    return tuple(_placeholder(number) for number in range(needed))


def _placeholder(number: int) -> VisibleGpu:
    gpu = Gpu(
        index=number, uuid="", gpu_uuid="", name="", bus_id="", memory_gib=None, used_gib=None
    )
    return VisibleGpu(gpu=gpu, name=str(number))


def check_gpus(system: System, environment: Mapping[str, str]) -> None:
    """Raise if this machine shows fewer GPUs than *system* needs, or the system file sets them.

    :raises PlacementError: with both numbers.
    :raises ConfigError: if the system file sets ``CUDA_VISIBLE_DEVICES``.
    """
    if not (needed := slot_gpus(system)):
        return
    roles = (own.env for own in system.model.roles.values())
    for table in (system.env, system.pd_env, system.pass_env, *roles):
        if GPUS_VARIABLE in table:
            raise ConfigError(
                f"{GPUS_VARIABLE} in {system.source} is set by the plan, a GPU for each slot; "
                "remove it, and set it in the environment of pytest to choose among GPUs"
            )
    try:
        visible = visible_gpus(find_gpus(), environment.get(GPUS_VARIABLE))
        why = _devices_text(environment)
    except NoGpusError as error:
        visible, why = (), f"{error}"
    if len(visible) < needed:
        cluster = system.cluster
        raise PlacementError(
            f"system {system.name!r} has {cluster.nodes} nodes with {cluster.gpus_per_node} GPUs "
            f"each, {needed} in all, but this machine shows {len(visible)} ({why}); lower nodes or "
            f"gpus_per_node in {system.source}, or choose another system by --system"
        )


def _devices_text(environment: Mapping[str, str]) -> str:
    devices = environment.get(GPUS_VARIABLE)
    return "all that NVML shows" if devices is None else f"{GPUS_VARIABLE} = {devices!r}"


@contextlib.contextmanager
def holding_gpus(
    system: System, environment: Mapping[str, str]
) -> Iterator[tuple[VisibleGpu, ...]]:
    """Lock the first free GPUs, as many as the slots of *system* need, until the block ends.

    The kernel releases the locks of a session that is killed.

    :raises AllocationError: if too few are free, naming each GPU in use and its users.
    """
    needed = slot_gpus(system)
    if not needed:
        yield ()
        return
    try:
        visible = visible_gpus(find_gpus(), environment.get(GPUS_VARIABLE))
    except NoGpusError as error:
        raise AllocationError(f"this machine shows no GPU any more: {error}") from error
    with contextlib.ExitStack() as held:
        free: list[VisibleGpu] = []
        refused: list[RefusedGpu] = []
        for each in visible:
            if len(free) == needed:
                break
            with contextlib.ExitStack() as lock:
                if why := _lock(each.gpu, lock) or in_use(each.gpu):
                    refused.append(RefusedGpu(gpu=each.gpu, why=why))
                    continue
                held.enter_context(lock.pop_all())
            free.append(each)
        if len(free) < needed:
            raise AllocationError(
                f"system {system.name!r} needs {needed} free GPUs, but {len(free)} of "
                f"{len(visible)} are free: {refusals(refused) or 'this machine shows no others'}"
            )
        yield tuple(free)


def _lock(gpu: Gpu, held: contextlib.ExitStack) -> Reason | None:
    """Lock a GPU until *held* closes; return which session has locked it, None on success.

    The lock is an abstract Unix socket: its name can be bound only once, it ends with its process,
    and the kernel reports its owner.
    """
    name = f"\0pdserve-gpu-{gpu.uuid}"
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(name)
        lock.listen(8)
    except OSError:
        lock.close()
        return held_by(_holder(name))
    held.enter_context(lock)
    return None


def _holder(name: str) -> str:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(name)
            peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        except OSError:
            return "another process"
    return process_text(_PEER.unpack(peer)[0])


def shares_of_cores(
    groups: Sequence[Sequence[VisibleGpu]], usable: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """Return the CPU cores of each slot: those next to its GPUs, shared among slots there.

    The first core of *usable* is left to router and client. A slot is not pinned if it would get
    fewer than two cores, or if the kernel does not report which cores are near.

    :param groups: GPUs of each slot.
    :param usable: cores that this process may use.
    """
    near = [_near_cores(group, usable[1:]) for group in groups]
    shares: list[tuple[int, ...]] = []
    for position, cores in enumerate(near):
        alike = [other for other, each in enumerate(near) if each == cores]
        size, place = len(cores) // len(alike), alike.index(position)
        shares.append(tuple(cores[place * size : (place + 1) * size]) if size >= 2 else ())
    return tuple(shares)


def _near_cores(group: Sequence[VisibleGpu], usable: Sequence[int]) -> tuple[int, ...]:
    near: set[int] = set()
    for each in group:
        with contextlib.suppress(OSError, ValueError):
            path = Path("/sys/bus/pci/devices", each.gpu.bus_id, "local_cpulist")
            near |= set(parse_cores(path.read_text()))
    return tuple(core for core in usable if core in near)


def parse_cores(text: str) -> tuple[int, ...]:
    """Parse a list of cores as the kernel writes it, e.g. ``0-3,8``.

    :raises ValueError: if *text* is not such a list.
    """
    cores: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return tuple(cores)
