"""Nights drawn from a noise profile, with regressions planted into them. Simulated throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.judge.estimation import Ints
from pytest_pdserve.judge.estimation import directions
from pytest_pdserve.judge.estimation import worse_by
from pytest_pdserve.study.profile import NoiseProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is measured every night."""

    topologies: int = 5
    """Families of cells."""
    cells_each: int = 9
    """Cells of each."""
    baseline_runs: int = 20
    """Runs of a baseline, one a night."""
    lead_nights: int = 6
    """Clean nights after the baseline, which fill the windows and are not counted."""
    runs: int = 4
    """Runs of a cell in a night that a judge may ask for."""

    @property
    def cells(self) -> int:
        """Cells of all topologies."""
        return self.topologies * self.cells_each

    @property
    def families(self) -> Ints:
        """Number of the topology of each cell."""
        return np.repeat(np.arange(self.topologies), self.cells_each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A slow-down that is planted into cell 0 of topology 0, or all of its cells."""

    size: float
    """How much worse, as a fraction: 0.05 is 5 %."""
    scope: Literal["metric", "cell", "topology"]
    """One metric of one cell, all metrics of one cell, or all metrics of a topology."""
    shape: Literal["step", "drift"] = "step"
    """At once and for good; or growing evenly until it is whole on the last night."""
    metric: str = "output_throughput"
    """Which, for the scope of one metric."""

    def hit(self, profile: NoiseProfile, layout: Layout) -> Floats:
        """1 for each test that is hit. Shape ``(cells, metrics)``."""
        hit = np.zeros((layout.cells, len(profile.cvs)))
        cells = slice(0, layout.cells_each if self.scope == "topology" else 1)
        chosen = profile.metrics.index(self.metric) if self.scope == "metric" else slice(None)
        hit[cells, chosen] = 1.0
        return hit


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Values in the metrics' units, of many replications of the same baseline and nights."""

    baseline: Floats
    """Shape ``(replications, cells, metrics, baseline runs)``."""
    nights: Floats
    """Shape ``(replications, lead + counted nights, cells, metrics, runs)``."""


def draw(
    profile: NoiseProfile,
    rng: np.random.Generator,
    *,
    layout: Layout,
    replications: int,
    nights: int,
    regression: Regression | None = None,
) -> Draws:
    """Draw baselines and the nights after them, without a gap between.

    :param nights: counted nights, after the lead; the regression starts on the first.
    """
    cells, metrics = layout.cells, len(profile.cvs)
    signs = directions(profile.metrics)
    normal = rng.standard_normal((replications, cells, metrics))
    cvs = np.array([cv for _, cv in profile.cvs])
    sds = cvs * np.exp(profile.spread * normal - profile.spread**2 / 2)
    after = layout.lead_nights + nights
    total = layout.baseline_runs + after
    night = np.sqrt(profile.icc) * _night_effects(profile, rng, layout, (replications, total))
    first = night[:, : layout.baseline_runs] + _own(profile, rng, night, layout.baseline_runs, 1)
    later = night[:, layout.baseline_runs :] + _own(profile, rng, night, after, layout.runs)
    base = first * sds[:, None, :, :, None] + _outliers(profile, rng, first.shape)
    runs = later * sds[:, None, :, :, None] + _outliers(profile, rng, later.shape)
    if regression is not None:
        whole = worse_by(np.full(metrics, regression.size), signs)
        grown = (
            np.arange(1, nights + 1) / nights if regression.shape == "drift" else np.ones(nights)
        )
        planted = grown[:, None, None] * (regression.hit(profile, layout) * whole)
        runs[:, layout.lead_nights :] += planted[None, ..., None]
    typical = rng.uniform(10.0, 1000.0, (1, cells, metrics, 1))
    return Draws(
        baseline=np.moveaxis(typical[:, None] * np.exp(base * signs[:, None]), 1, -2)[..., 0],
        nights=typical[:, None] * np.exp(runs * signs[:, None]),
    )


def _own(
    profile: NoiseProfile, rng: np.random.Generator, night: Floats, nights: int, runs: int
) -> Floats:
    """What each run has for itself, shape ``(replications, nights, cells, metrics, runs)``."""
    replications, _, cells, metrics, _ = night.shape
    shape = (replications, nights, cells, metrics, runs)
    own: Floats = np.sqrt(1 - profile.icc) * _correlated(profile, rng, shape)
    return own


def _night_effects(
    profile: NoiseProfile, rng: np.random.Generator, layout: Layout, size: tuple[int, int]
) -> Floats:
    """Effects of variance 1, shape ``(replications, nights, cells, metrics, 1)``."""
    metrics = len(profile.cvs)
    own = _correlated(profile, rng, (*size, layout.cells, metrics, 1))
    if profile.night_sharing > 0:
        common = _correlated(profile, rng, (*size, layout.topologies, metrics, 1))
        common = common[:, :, layout.families]
        own = np.sqrt(profile.night_sharing) * common + np.sqrt(1 - profile.night_sharing) * own
    keep = profile.night_persistence
    if keep > 0:
        for night in range(1, size[1]):
            own[:, night] = keep * own[:, night - 1] + np.sqrt(1 - keep**2) * own[:, night]
    return own


def _correlated(profile: NoiseProfile, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draws of variance 1, correlated along the metrics (last axis but one)."""
    rho = profile.metric_correlation
    common = _standard(profile, rng, (*shape[:-2], 1, shape[-1]))
    own = _standard(profile, rng, shape)
    drawn: Floats = np.sqrt(rho) * common + np.sqrt(1 - rho) * own
    return drawn


def _standard(profile: NoiseProfile, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    if profile.shape == "t3":
        tailed: Floats = rng.standard_t(3, shape) / np.sqrt(3)
        return tailed
    drawn = rng.standard_normal(shape)
    if profile.shape == "mixture":
        drawn *= np.where(rng.random(shape) < 0.1, 3.0, 1.0) / np.sqrt(0.9 + 0.1 * 9)
    return drawn


def _outliers(profile: NoiseProfile, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Slow-down of whole runs, log scale: the same for every metric of a run."""
    one = (*shape[:-2], 1, shape[-1])
    sizes = np.log1p(rng.uniform(*profile.outlier_sizes, one))
    return np.where(rng.random(one) < profile.outlier_rate, sizes, 0.0)
