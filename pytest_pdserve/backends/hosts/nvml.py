"""Reads the GPUs of this machine with NVIDIA's management library (NVML)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from typing import TypeVar

from pytest_pdserve.values.gpus import GpuState

T = TypeVar("T")
_THROTTLING = {
    "hardware slowdown": "nvmlClocksEventReasonHwSlowdown",
    "hardware thermal slowdown": "nvmlClocksEventReasonHwThermalSlowdown",
    "software thermal slowdown": "nvmlClocksEventReasonSwThermalSlowdown",
    "power brake": "nvmlClocksEventReasonHwPowerBrakeSlowdown",
    "power cap": "nvmlClocksEventReasonSwPowerCap",
}
"""Reasons for lower clocks, with NVML's name of each bit."""


class NoGpusError(Exception):
    """Raised when NVML shows no GPU; the message is a clause that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUser:
    """A process that computes on a GPU."""

    pid: int
    """In the driver's process id namespace, which may differ from that of a container."""
    used_gib: float | None
    """Memory of the GPU; None if NVML does not report it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU, or a MIG slice of one."""

    index: int
    """Of the GPU, in the order of the PCI bus."""
    uuid: str
    """``GPU-…``, or ``MIG-…`` for a slice."""
    gpu_uuid: str
    """UUID of the whole GPU; the same as *uuid* unless it is a slice."""
    name: str
    """Model."""
    bus_id: str
    """PCI bus id of the GPU, as in ``/sys/bus/pci/devices``."""
    memory_gib: float | None
    """Total memory; None if NVML does not report it."""
    used_gib: float | None
    """Memory in use, without the driver's own; None if NVML does not report it."""
    users: tuple[GpuUser, ...] | None = ()
    """Processes that compute on it; None if NVML does not report them."""

    @property
    def is_slice(self) -> bool:
        """True if it is a MIG slice."""
        return self.uuid != self.gpu_uuid


@contextlib.contextmanager
def _nvml() -> Iterator[ModuleType]:
    """Yield the NVML library, initialised.

    :raises NoGpusError: if the driver does not answer.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoGpusError(f"NVML says: {error}") from error
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs of this machine in the order of the PCI bus; of one with MIG, its slices.

    :raises NoGpusError: if NVML shows none.
    """
    with _nvml() as nvml:
        try:
            found = [
                gpu
                for index in range(nvml.nvmlDeviceGetCount())
                for gpu in _read(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index))
            ]
        except nvml.NVMLError as error:
            raise NoGpusError(f"NVML says: {error}") from error
    if not found:
        raise NoGpusError("NVML shows no GPU")
    return tuple(found)


def driver_versions() -> dict[str, str]:
    """Return the versions of driver and CUDA; empty without a driver that answers."""
    with contextlib.suppress(NoGpusError), _nvml() as nvml:
        cuda = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        return {
            "driver": str(nvml.nvmlSystemGetDriverVersion()),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        }
    return {}


def _read(nvml: ModuleType, index: int, handle: Any) -> Iterator[Gpu]:
    uuid, bus_id = nvml.nvmlDeviceGetUUID(handle), _bus_id(nvml.nvmlDeviceGetPciInfo(handle).busId)
    make = functools.partial(_gpu, nvml, index=index, gpu_uuid=uuid, bus_id=bus_id)
    slices = list(_slices(nvml, handle))
    for part in slices or [handle]:
        yield make(part, name=nvml.nvmlDeviceGetName(handle))


def _gpu(
    nvml: ModuleType, handle: Any, *, index: int, gpu_uuid: str, bus_id: str, name: str
) -> Gpu:
    memory = _answer(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
    users = _answer(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return Gpu(
        index=index,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        gpu_uuid=str(gpu_uuid),
        name=str(name),
        bus_id=bus_id,
        memory_gib=memory.total / 2**30 if memory else None,
        used_gib=memory.used / 2**30 if memory else None,
        users=None if users is None else tuple(_user(each) for each in users),
    )


def _user(process: Any) -> GpuUser:
    used = process.usedGpuMemory
    return GpuUser(pid=int(process.pid), used_gib=None if used is None else used / 2**30)


def _slices(nvml: ModuleType, handle: Any) -> Iterator[Any]:
    """Yield the handles of the MIG slices of a GPU; none without MIG."""
    count = _answer(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    for number in range(count):
        ask = functools.partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        part = _answer(nvml, ask)
        if part is not None:
            yield part


def _bus_id(bus_id: str | bytes) -> str:
    """Return NVML's ``00000000:1B:00.0`` as the kernel writes it, ``0000:1b:00.0``."""
    text = bus_id.decode() if isinstance(bus_id, bytes) else bus_id
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _answer(nvml: ModuleType, ask: Callable[[], T]) -> T | None:
    """Return the result of an NVML call; None if this GPU or driver does not support it."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


class GpuReader:
    """Reads clocks, power and temperature of some GPUs repeatedly."""

    def __init__(self, nvml: ModuleType, handles: dict[str, Any]) -> None:
        self._nvml = nvml
        self._handles = handles

    @property
    def uuids(self) -> tuple[str, ...]:
        """UUIDs of the GPUs that it reads."""
        return tuple(self._handles)

    def read(self, uuid: str) -> GpuState:
        """Return the current state of a GPU; values that it does not report are None."""
        nvml, handle = self._nvml, self._handles[uuid]
        power = self._ask("nvmlDeviceGetPowerUsage", handle)
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle) or 0
        return GpuState(
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
            power_w=None if power is None else power / 1000,
            temperature_c=self._ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            throttled=tuple(
                name for name, bit in _THROTTLING.items() if reasons & getattr(nvml, bit)
            ),
            ecc_uncorrected=self._ask(
                "nvmlDeviceGetTotalEccErrors",
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
        )

    def facts(self, uuid: str) -> dict[str, float]:
        """Return values that stay the same during a load; those not reported are absent."""
        nvml, handle = self._nvml, self._handles[uuid]
        cap = self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)
        found = {
            "sm_mhz_max": self._ask("nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM),
            "power_cap_w": None if cap is None else cap / 1000,
            "nvlinks_up": self._nvlinks(handle),
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def users(self, uuid: str) -> tuple[int, ...]:
        """Return the ids of the processes that compute on a GPU."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses", self._handles[uuid]) or ()
        return tuple(int(each.pid) for each in found)

    def _nvlinks(self, handle: Any) -> int | None:
        states = [
            self._ask("nvmlDeviceGetNvLinkState", handle, link)
            for link in range(self._nvml.NVML_NVLINK_MAX_LINKS)
        ]
        reported = [state for state in states if state is not None]
        return sum(reported) if reported else None

    def _ask(self, name: str, *arguments: Any) -> Any:
        return _answer(self._nvml, lambda: getattr(self._nvml, name)(*arguments))


@contextlib.contextmanager
def reading(uuids: tuple[str, ...]) -> Iterator[GpuReader]:
    """Yield a reader of the GPUs *uuids*, without those that NVML does not find.

    :raises NoGpusError: if the driver does not answer.
    """
    with _nvml() as nvml:
        handles = {
            uuid: _answer(nvml, functools.partial(nvml.nvmlDeviceGetHandleByUUID, uuid))
            for uuid in uuids
        }
        yield GpuReader(nvml, {uuid: handle for uuid, handle in handles.items() if handle})
