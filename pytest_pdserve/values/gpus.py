"""What GPUs were like while a load ran."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """A GPU at one time; what it does not tell is None."""

    sm_mhz: float | None = None
    """Clock of its multiprocessors."""
    memory_mhz: float | None = None
    """Clock of its memory."""
    power_w: float | None = None
    """Power that it draws."""
    temperature_c: float | None = None
    """Of the chip."""
    throttled: tuple[str, ...] = ()
    """Why its clocks are lower than asked, if they are."""
    ecc_uncorrected: float | None = None
    """Memory errors since the driver was loaded that ECC could not correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRun:
    """A GPU before, during and after a run."""

    index: int
    """On its node, in the order of the PCI bus."""
    node: str
    """Node, or slot of this machine, that has it."""
    uuid: str
    """Of the GPU."""
    name: str
    """Model."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """What does not change: sm_mhz_max, power_cap_w, nvlinks_up; what it does not tell is
    absent."""
    before: GpuState
    """Just before the load."""
    during: Mapping[str, float] = field(default_factory=dict)
    """Over the load: mean and extreme values (mean_sm_mhz, min_sm_mhz, mean_power_w,
    max_power_w, max_temperature_c) and samples, their number."""
    after: GpuState
    """Just after it."""
    throttled: Mapping[str, float] = field(default_factory=dict)
    """Share of the samples, by reason, in which its clocks were lower than asked."""
    others: tuple[str, ...] = ()
    """Processes that are not the session's and computed on it."""

    @property
    def ecc_errors(self) -> float:
        """Memory errors during the run that ECC could not correct."""
        first, last = self.before.ecc_uncorrected, self.after.ecc_uncorrected
        return 0.0 if first is None or last is None else last - first


def summarize(samples: Sequence[GpuState]) -> tuple[dict[str, float], dict[str, float]]:
    """Return :attr:`GpuRun.during` and :attr:`GpuRun.throttled` of *samples* during a load."""
    clocks = [s.sm_mhz for s in samples if s.sm_mhz is not None]
    powers = [s.power_w for s in samples if s.power_w is not None]
    heats = [s.temperature_c for s in samples if s.temperature_c is not None]
    during = {"samples": float(len(samples))}
    if clocks:
        during |= {"mean_sm_mhz": sum(clocks) / len(clocks), "min_sm_mhz": min(clocks)}
    if powers:
        during |= {"mean_power_w": sum(powers) / len(powers), "max_power_w": max(powers)}
    if heats:
        during["max_temperature_c"] = max(heats)
    reasons = dict.fromkeys(reason for sample in samples for reason in sample.throttled)
    throttled = {
        reason: sum(reason in sample.throttled for sample in samples) / len(samples)
        for reason in reasons
    }
    return {name: round(value, 1) for name, value in during.items()}, throttled
