"""What a simulated system adds to its model: seed, history, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import Self

from pytest_pdserve.values.errors import ConfigError

MOST_DRIFT = 1000.0
"""How many times slower or faster drift may make a night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSpec:
    """How a simulated run differs from the model's bare answer; by default not at all."""

    seed: int = 0
    """Of routing and noise, beside the workload's own."""
    night: int = 0
    """Which night it is: runs of one night share a part of their noise, and drift counts nights."""
    replay: bool = False
    """Whether the cells of the sweep before this one were run first, with the same prompts."""
    run_cv: float = 0.0
    """Coefficient of variation of all service times from run to run."""
    ttft_cv: float = 0.0
    """The same of the time to first token, beside :attr:`run_cv`."""
    ttft_tail_cv: float = 0.0
    """The same of its 99th percentile, beside both."""
    icc: float = 0.2
    """Share of the variance that runs of one night have in common."""
    heavy_tails: bool = False
    """Whether noise is drawn from Student's t of 3 degrees of freedom, not from the normal."""
    slow_runs: float = 0.0
    """Share of runs that are slowed by 5 to 50 %."""
    drift_per_night: float = 0.0
    """By how much, as a fraction, every night is slower than the one before."""
    bad_node: str | None = None
    """A node that is slower than the others."""
    bad_node_factor: float = 1.0
    """How much longer its steps take."""

    @classmethod
    def from_toml(cls, data: dict[str, Any]) -> Self:
        """Read the system file's table; ``noise = "reference"`` is where other keys start from.

        :raises ConfigError: if drift has grown out of all measure by its night.
        """
        fields = dict(data)
        start = cls(**_REFERENCE) if fields.pop("noise", "none") == "reference" else cls()
        spec = replace(start, **fields)
        if abs(spec.night * math.log1p(spec.drift_per_night)) > math.log(MOST_DRIFT):
            raise ConfigError(
                f"simulation.night = {spec.night} with drift_per_night = {spec.drift_per_night:g} "
                f"is more than {MOST_DRIFT:g} times slower or faster; name an earlier night"
            )
        return spec


_REFERENCE: dict[str, Any] = {
    "run_cv": 0.008,
    "ttft_cv": 0.0127,
    "ttft_tail_cv": 0.058,
    "slow_runs": 0.01,
}
"""Throughput, ITL, TPOT, E2EL 0.8 %; TTFT p50 1.5 %, mean 2 %, p99 6 %; 1 % of runs slowed."""
