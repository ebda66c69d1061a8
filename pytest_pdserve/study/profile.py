"""Noise profiles: how runs of an unchanged system differ."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import Literal

from pytest_pdserve.values.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseProfile:
    """Run-to-run noise of one system, as an A/A study tells it or as a simulation draws it."""

    name: str
    """Short name, e.g. ``reference``."""
    source: str
    """Where the figures come from."""
    cvs: tuple[tuple[str, float], ...]
    """Metric and run-to-run standard deviation, log scale (0.008 is 0.8 %), night included."""
    icc: float
    """Share of that variance that runs of a cell in one night have in common (0 to 1)."""
    metric_correlation: float
    """Correlation of two metrics of one run, both signed so that positive is worse."""
    spread: float
    """Standard deviation of log standard deviation from cell to cell."""
    outlier_rate: float
    """Share of runs that are slowed in every metric."""
    outlier_sizes: tuple[float, float]
    """Least and largest slow-down of such a run, as fractions; uniform between."""
    shape: Literal["normal", "t3", "mixture"] = "normal"
    """Noise: normal; Student's t of 3 degrees of freedom scaled to variance 1; or normal with one
    draw in ten three times as wide, scaled to variance 1."""
    night_persistence: float = 0.0
    """Correlation of a night's effect with the night before."""
    night_sharing: float = 0.0
    """Share of a night's effect that all cells of a topology have in common (variance, 0 to 1)."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names, in the order of :attr:`cvs`."""
        return tuple(name for name, _ in self.cvs)


REFERENCE = NoiseProfile(
    name="reference",
    source="the project's statistics.md, from 1,599 public nightly serving runs, 2026-11",
    cvs=(
        ("output_throughput", 0.008),
        ("mean_itl_ms", 0.008),
        ("mean_tpot_ms", 0.008),
        ("mean_e2el_ms", 0.008),
        ("mean_ttft_ms", 0.02),
        ("p50_ttft_ms", 0.015),
        ("p99_ttft_ms", 0.06),
        ("p99_tpot_ms", 0.03),
    ),
    icc=0.2,
    metric_correlation=0.6,
    spread=0.35,
    outlier_rate=0.01,
    outlier_sizes=(0.05, 0.50),
)
"""What the rules were designed for. Nights are independent, and each cell has its own: a
deployment is started anew for it."""


def _harsher(name: str, why: str, **changes: object) -> NoiseProfile:
    return replace(REFERENCE, name=name, source=f"reference, but {why}", **changes)  # type: ignore[arg-type]


PROFILES = {
    profile.name: profile
    for profile in (
        REFERENCE,
        _harsher("t3", "noise with tails of Student's t of 3 degrees of freedom", shape="t3"),
        _harsher("mixture", "one draw in ten is three times as wide", shape="mixture"),
        _harsher("icc", "half of the variance belongs to the night", icc=0.5),
        _harsher(
            "t3-icc", "t3 tails, and half of the variance is the night's", shape="t3", icc=0.5
        ),
        _harsher("shared", "a topology's cells share the night's effect", night_sharing=1.0),
        _harsher("weeks", "nights resemble the one before (0.7)", night_persistence=0.7),
        _harsher(
            "weeks-icc",
            "half of the variance is the night's, and nights resemble the one before (0.7)",
            icc=0.5,
            night_persistence=0.7,
        ),
        _harsher("outliers", "5 % of runs are slowed", outlier_rate=0.05),
    )
}
"""Profiles that ``pdserve selftest`` knows, by name."""


def profile_named(name: str) -> NoiseProfile:
    """Look a profile up.

    :raises ConfigError: if there is none of that name.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise ConfigError(f"no profile {name!r}; known are {', '.join(PROFILES)}") from None
