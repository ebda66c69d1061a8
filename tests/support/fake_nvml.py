"""A stand-in for NVML: the machine that tests run on has no GPU."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from dataclasses import field
from importlib.machinery import ModuleSpec
from types import ModuleType
from types import SimpleNamespace
from typing import Any

import pytest

H200 = "NVIDIA H200"


class NVMLError(Exception):
    """As the library's."""


@dataclass(kw_only=True)
class FakeGpu:
    """One GPU, or MIG slice, as NVML answers for it."""

    uuid: str
    name: str = H200
    used_gib: float | None = 0.0
    """None is not told."""
    users: tuple[tuple[int, float | None], ...] | None = ()
    """Process and GiB; None is not told."""
    slices: tuple[FakeGpu, ...] = ()
    reasons: tuple[int, ...] = (0,)
    """Throttle reasons of one look after the other; the last one stays."""
    ecc: tuple[int, ...] = (0,)
    """Memory errors, likewise."""
    looks: dict[str, int] = field(default_factory=dict)

    def next(self, what: str, values: tuple[int, ...]) -> int:
        seen = self.looks[what] = self.looks.get(what, -1) + 1
        return values[min(seen, len(values) - 1)]


def gpus(count: int, *, mark: int | None = None, **changes: Any) -> tuple[FakeGpu, ...]:
    """Return *count* GPUs, the last of which has *changes*.

    Tests run side by side, and a GPU is held once on a machine.

    :param mark: a part of their ids that is the test process's own.
    """
    made = [FakeGpu(uuid=f"GPU-{n:04d}-{mark or os.getpid()}") for n in range(count)]
    for name, value in changes.items():
        setattr(made[-1], name, value)
    return tuple(made)


def install(monkeypatch: pytest.MonkeyPatch, *found: FakeGpu, fault: str = "") -> None:
    """Have ``import pynvml`` give a library that shows *found*.

    :param fault: what it says instead when it is initialised.
    """
    monkeypatch.setitem(sys.modules, "pynvml", module(found, fault))


def memory(gpu: FakeGpu) -> SimpleNamespace:
    """Return the memory of a GPU.

    :raises NVMLError: if it does not tell.
    """
    if gpu.used_gib is None:
        raise NVMLError("Not Supported")
    return SimpleNamespace(total=141 * 2**30, used=int(gpu.used_gib * 2**30))


def processes(gpu: FakeGpu) -> list[SimpleNamespace]:
    """Return the processes that compute on a GPU.

    :raises NVMLError: if it does not tell.
    """
    if gpu.users is None:
        raise NVMLError("Not Supported")
    return [
        SimpleNamespace(pid=pid, usedGpuMemory=None if gib is None else int(gib * 2**30))
        for pid, gib in gpu.users
    ]


def module(found: tuple[FakeGpu, ...], fault: str = "") -> ModuleType:
    """Return the library that shows *found*."""
    made = ModuleType("pynvml")
    made.__spec__ = ModuleSpec("pynvml", None)
    by_uuid = {each.uuid: each for gpu in found for each in (gpu, *gpu.slices)}

    def init() -> None:
        if fault:
            raise NVMLError(fault)

    def part(gpu: FakeGpu, number: int) -> FakeGpu:
        if number >= len(gpu.slices):
            raise NVMLError("Not Found")
        return gpu.slices[number]

    def position(gpu: FakeGpu) -> int:
        return next(n for n, each in enumerate(found) if gpu in (each, *each.slices))

    functions: dict[str, Any] = {
        "nvmlInit": init,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(found),
        "nvmlDeviceGetHandleByIndex": lambda index: found[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: by_uuid[uuid],
        "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
        "nvmlDeviceGetName": lambda gpu: gpu.name,
        "nvmlDeviceGetPciInfo": lambda gpu: SimpleNamespace(
            busId=f"00000000:{position(gpu) + 1:02X}:00.0"
        ),
        "nvmlDeviceGetMemoryInfo": lambda gpu, version: memory(gpu),
        "nvmlDeviceGetComputeRunningProcesses": processes,
        "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: 7 if gpu.slices else 0,
        "nvmlDeviceGetMigDeviceHandleByIndex": part,
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlDeviceGetPowerUsage": lambda gpu: 512_000,
        "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: 700_000,
        "nvmlDeviceGetClockInfo": lambda gpu, clock: 1755,
        "nvmlDeviceGetMaxClockInfo": lambda gpu, clock: 1980,
        "nvmlDeviceGetTemperature": lambda gpu, sensor: 61,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: gpu.next("reasons", gpu.reasons),
        "nvmlDeviceGetTotalEccErrors": lambda gpu, kind, counter: gpu.next("ecc", gpu.ecc),
        "nvmlDeviceGetNvLinkState": lambda gpu, link: 1,
    }
    constants = {
        "NVMLError": NVMLError,
        "nvmlMemory_v2": 0,
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
        "NVML_VOLATILE_ECC": 0,
        "NVML_NVLINK_MAX_LINKS": 18,
        "nvmlClocksEventReasonSwPowerCap": 0x4,
        "nvmlClocksEventReasonHwSlowdown": 0x8,
        "nvmlClocksEventReasonSwThermalSlowdown": 0x20,
        "nvmlClocksEventReasonHwThermalSlowdown": 0x40,
        "nvmlClocksEventReasonHwPowerBrakeSlowdown": 0x80,
    }
    made.__dict__.update({**functions, **constants})
    return made
