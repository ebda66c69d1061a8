"""State of GPUs during a load."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

SAMPLE_S = 1.0
"""Time between two samples of a GPU during a load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """State of a GPU at one time; None for values that it does not report."""

    sm_mhz: float | None = None
    """Clock of its multiprocessors."""
    memory_mhz: float | None = None
    """Clock of its memory."""
    power_w: float | None = None
    """Power draw."""
    temperature_c: float | None = None
    """Temperature of the chip."""
    throttled: tuple[str, ...] = ()
    """Reasons for reduced clocks; empty without any."""
    ecc_uncorrected: float | None = None
    """Uncorrectable ECC errors since the driver was loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """A GPU at one time, as its node writes it down."""

    index: int
    """Index on its node, in the order of the PCI bus."""
    uuid: str
    """UUID of the GPU."""
    name: str
    """Model, e.g. ``NVIDIA H200``."""
    facts: Mapping[str, float]
    """Constant properties, as of :attr:`GpuRun.facts`."""
    state: GpuState
    """State now."""
    ours: bool
    """True if a process of the session was seen on it. If none is, *others* is not trusted: in a
    container, process ids may differ from those of the driver."""
    others: tuple[str, ...] = ()
    """Processes on it that do not belong to the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRun:
    """A GPU before, during and after a run."""

    index: int
    """Index on its node, in the order of the PCI bus."""
    node: str
    """Node, or slot of this machine."""
    uuid: str
    """UUID of the GPU."""
    name: str
    """Model, e.g. ``NVIDIA H200``."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Constant properties: sm_mhz_max, power_cap_w, nvlinks_up, as far as it reports them."""
    before: GpuState
    """State just before the load."""
    during: Mapping[str, float] = field(default_factory=dict)
    """Statistics of samples during the load: mean_sm_mhz, min_sm_mhz, mean_power_w, max_power_w,
    max_temperature_c, and samples, their number."""
    after: GpuState
    """State just after the load."""
    throttled: Mapping[str, float] = field(default_factory=dict)
    """Share of the samples with reduced clocks, by reason."""
    others: tuple[str, ...] = ()
    """Processes on it that do not belong to the session."""

    @property
    def ecc_errors(self) -> float | None:
        """Uncorrectable ECC errors during the run; None if it does not report them."""
        first, last = self.before.ecc_uncorrected, self.after.ecc_uncorrected
        return None if first is None or last is None else last - first


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
