"""Check of GPUs that were throttled, shared or faulty during a load."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pdserve.judge.findings import note
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding

EXPECTED_REASON = "power cap"
"""Reason for lower clocks that is normal for a loaded GPU; only the record has its share."""
MIN_SHARE = 0.05
"""Share of the samples from which a throttled GPU gets a note."""


def check_gpus(run: Observation) -> Iterator[Finding]:
    """Note GPUs that were throttled, used by other processes, or had memory errors."""
    for gpu in run.gpus:
        where = f"GPU {gpu.index} ({gpu.name}) of {gpu.node}"
        for reason, share in gpu.throttled.items():
            if reason != EXPECTED_REASON and share >= MIN_SHARE:
                yield note("gpu_throttled", f"{where} was throttled: {_throttled(gpu, reason)}")
        if gpu.others:
            yield note("gpu_shared", f"{where} was also used by {', '.join(gpu.others)}")
        if (errors := gpu.ecc_errors) is not None and errors > 0:
            yield note(
                "gpu_errors",
                f"{where} had {errors:g} memory errors that ECC could not correct",
            )


def _throttled(gpu: GpuRun, reason: str) -> str:
    text = f"{reason} in {gpu.throttled[reason]:.0%} of the load"
    if (clock := gpu.during.get("mean_sm_mhz")) is not None:
        max_clock = gpu.facts.get("sm_mhz_max")
        text += f", clock {clock:.0f} MHz" + (f" of {max_clock:.0f}" if max_clock else "")
    if (temperature := gpu.during.get("max_temperature_c")) is not None:
        text += f", up to {temperature:.0f} °C"
    return text
