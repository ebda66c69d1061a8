"""Whether GPUs ran as they should while a load ran."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.findings import note
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

EXPECTED_REASON = "power cap"
"""Reason for lower clocks that a loaded GPU may have all the time; the record has its share."""
LEAST_SHARE = 0.05
"""Share of the samples from which on a throttled GPU is named."""


def check_gpus(seen: Observation) -> Iterator[Finding]:
    """Name GPUs that were throttled, used by others, or had memory errors."""
    for gpu in seen.gpus:
        where = f"GPU {gpu.index} ({gpu.name}) of {gpu.node}"
        for reason, share in gpu.throttled.items():
            if reason != EXPECTED_REASON and share >= LEAST_SHARE:
                yield note("gpu_throttled", f"{where} was throttled: {_throttled(gpu, reason)}")
        if gpu.others:
            yield note("gpu_shared", f"{where} was also used by {', '.join(gpu.others)}")
        if gpu.ecc_errors > 0:
            yield note(
                "gpu_errors",
                f"{where} had {gpu.ecc_errors:g} memory errors that ECC could not correct",
            )


def _throttled(gpu: GpuRun, reason: str) -> str:
    said = f"{reason} in {gpu.throttled[reason]:.0%} of the load"
    if (clock := gpu.during.get("mean_sm_mhz")) is not None:
        most = gpu.facts.get("sm_mhz_max")
        said += f", clock {clock:.0f} MHz" + (f" of {most:.0f}" if most else "")
    if (heat := gpu.during.get("max_temperature_c")) is not None:
        said += f", up to {heat:.0f} °C"
    return said
