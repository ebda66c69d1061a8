"""Kinds of noise, and nights drawn from them. Simulated throughout.

A value is the distance of a metric from its typical value: a logarithm, signed so that larger is
worse, as by :func:`~pytest_pdserve.judge.limits.signed_log`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pytest_pdserve.values.errors import ConfigError

Floats = npt.NDArray[np.float64]
Shape = Literal["normal", "t3", "exponential"]
"""Distribution of the noise from run to run."""
SPREADS = {
    "mean_e2el_ms": 0.008,
    "mean_itl_ms": 0.008,
    "mean_tpot_ms": 0.008,
    "output_throughput": 0.008,
    "mean_ttft_ms": 0.02,
    "p99_ttft_ms": 0.06,
}
"""Standard deviation of one run of each metric, as a fraction: a quiet system (public nightly runs,
docs/judging.md)."""
SIMULATED = tuple(SPREADS)
"""Metrics that are simulated, in the order of the last axis of every array."""
ITL_LIKE = tuple(place for place, spread in enumerate(SPREADS.values()) if spread == 0.008)
"""Indices of the four metrics that a slower decode affects together."""
CORRELATION = 0.6
"""Correlation of two metrics of one run."""
SLOWED = (0.05, 0.50)
"""Smallest and largest slowdown of a slowed run, as a fraction; uniform between them."""
STARTS = 5
"""Starts of a topology in one night: the first, two reruns of cells, two of all cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Numbers of topologies and cells that are measured every night."""

    topologies: int = 5
    cells_each: int = 8
    """Cells of each topology."""

    @property
    def cells(self) -> int:
        """Cells of all topologies."""
        return self.topologies * self.cells_each

    def cells_of(self, topology: int) -> range:
        """Return the indices of the cells of a topology."""
        return range(topology * self.cells_each, (topology + 1) * self.cells_each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """One kind of noise: how runs of an unchanged system differ."""

    name: str
    """Name for ``--noise`` and tables."""
    about: str
    """Description in one sentence."""
    shape: Shape = "normal"
    """Distribution of the noise from run to run, scaled to variance 1."""
    night_share: float = 0.2
    """Share of the variance that all runs of a cell in one night share."""
    night_correlation: float = 0.0
    """Correlation of a night with the night before."""
    start_share: float = 0.0
    """Share of the variance that all runs of a topology on one start share."""
    slowed_runs: float = 0.01
    """Share of runs that are slowed in every metric."""
    slow_starts: float = 0.0
    """Share of starts of a topology that are slow."""
    slow_start: float = 0.025
    """Slowdown of these starts, as a fraction."""
    noisy_nights: float = 0.0
    """Share of nights on which everything is twice as noisy."""
    slowed_nights: float = 0.0
    """Share of nights of a cell that are slowed in every metric."""
    reruns_elsewhere: bool = False
    """True if reruns in such a night run on other nodes, which are not slow."""
    spread_of_spreads: float = 0.35
    """Standard deviation of the logarithm of the spread from cell to cell and metric to metric."""
    nodes: int = 0
    """Number of nodes that starts take in turn, of which one becomes slow; 0 for no slow node."""
    slow_node: float = 0.06
    """Slowdown of a start on that node, as a fraction."""
    scale: float = 1.0
    """Factor of all :data:`SPREADS`."""
    fits_floors: bool = True
    """True if the metrics' floors are suitable for such noise."""

    @property
    def is_sticky(self) -> bool:
        """True if a slow night stays slow in all of its reruns."""
        return self.slowed_nights > 0 and not self.reruns_elsewhere


KINDS = (
    Noise(name="normal", about="The reference: normal noise."),
    Noise(
        name="t3",
        about="Student's t of 3 degrees of freedom: large deviations to both sides.",
        shape="t3",
    ),
    Noise(
        name="slow-tail",
        about="Exponential noise: large deviations to the slow side only.",
        shape="exponential",
    ),
    Noise(
        name="ar1",
        about="Nights resemble the one before: the part that they share is correlated 0.7.",
        night_correlation=0.7,
    ),
    Noise(
        name="slowed-runs",
        about="Two runs in a hundred are slowed by 5 to 50 % in every metric.",
        slowed_runs=0.02,
    ),
    Noise(
        name="night-half",
        about="Half of the variance is the night's, and reruns share it.",
        night_share=0.5,
    ),
    Noise(
        name="night-most",
        about="85 % of the variance is the night's, and reruns share it.",
        night_share=0.85,
    ),
    Noise(
        name="starts",
        about="80 % of the variance is the server start's, and a topology's cells share it.",
        night_share=0.0,
        start_share=0.8,
    ),
    Noise(
        name="bimodal",
        about="One start of a topology in five is 2.5 % slow in all of its cells.",
        slow_starts=0.2,
    ),
    Noise(
        name="noisy-nights",
        about="One night in ten is twice as noisy in every cell.",
        noisy_nights=0.1,
    ),
    Noise(
        name="sticky",
        about="0.4 % of the nights of a cell are slowed by 5 to 50 %, and so are their reruns.",
        slowed_nights=0.004,
    ),
    Noise(
        name="sticky-nodes",
        about="The same slow nights, but reruns are made on other nodes and are not slow.",
        slowed_nights=0.004,
        reruns_elsewhere=True,
    ),
    Noise(
        name="even",
        about="All cells are equally noisy, and nothing is shared or slowed.",
        night_share=0.0,
        slowed_runs=0.0,
        spread_of_spreads=0.0,
    ),
    Noise(
        name="uneven",
        about="Spreads differ by 70 % from cell to cell and metric to metric.",
        spread_of_spreads=0.7,
    ),
    Noise(
        name="bad-node",
        about="After the baseline one of eight nodes is 6 % slow; starts take the nodes in turn.",
        nodes=8,
    ),
    Noise(
        name="doubled",
        about="Every spread is twice what the floors are meant for.",
        scale=2.0,
        fits_floors=False,
    ),
    Noise(
        name="doubled-night",
        about="The same, and 85 % of the variance is the night's.",
        night_share=0.85,
        scale=2.0,
        fits_floors=False,
    ),
)
"""Every kind, in the order of the tables."""
REFERENCE = (
    "Unless a kind says otherwise, one run of a cell has a spread of 0.8 % (mean E2EL, ITL and "
    "TPOT, output throughput), 2 % (mean TTFT) and 6 % (p99 TTFT), two metrics of a run are "
    "correlated 0.6, spreads differ by 35 % from cell to cell, 20 % of the variance is the "
    "night's, and 1 % of runs are slowed by 5 to 50 %."
)
"""Description of what all kinds have in common."""


def noise_named(name: str) -> Noise:
    """Return the kind of noise with this name.

    :raises ConfigError: if there is none.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    names = ", ".join(kind.name for kind in KINDS)
    raise ConfigError(f"--noise {name!r:.60} is not a kind of noise, expected one of {names}")


def draw(
    noise: Noise, rng: np.random.Generator, *, layout: Layout, baseline: int, nights: int
) -> Floats:
    """Draw every run that may be needed on a number of nights in a row.

    :param baseline: number of nights before the others, on which no node is slow.
    :returns: shape ``(nights, starts, cells, metrics)``.
    """
    nights += baseline
    cells = (nights, STARTS, layout.cells, len(SIMULATED))
    own = 1 - noise.night_share - noise.start_share
    drawn = np.sqrt(own) * correlated(noise.shape, rng, cells)
    if noise.night_share:
        drawn += np.sqrt(noise.night_share) * _nights(noise, rng, layout=layout, nights=nights)
    if noise.start_share:
        starts = correlated(noise.shape, rng, (nights, STARTS, layout.topologies, len(SIMULATED)))
        drawn += np.sqrt(noise.start_share) * np.repeat(starts, layout.cells_each, axis=2)
    if noise.noisy_nights:
        drawn *= np.where(rng.random((nights, 1, 1, 1)) < noise.noisy_nights, 2.0, 1.0)
    sds = noise.scale * np.array(tuple(SPREADS.values()))
    if noise.spread_of_spreads:
        widths = rng.standard_normal((layout.cells, len(SIMULATED)))
        uneven = noise.spread_of_spreads
        sds = sds * np.exp(uneven * widths - uneven**2 / 2)
    slowed = _slowed_runs(noise, rng, layout=layout, nights=nights)
    slowed[baseline:] += _slow_node(noise, rng, layout=layout, nights=nights - baseline)
    runs: Floats = drawn * sds + slowed[..., None]
    return runs


def correlated(kind: Shape, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw values of variance 1 that are correlated along the last axis, the metrics.

    :param kind: their distribution.
    """
    common, own = (_standard(kind, rng, size) for size in ((*shape[:-1], 1), shape))
    mixed: Floats = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
    return mixed


def _standard(kind: Shape, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    if kind == "t3":
        heavy: Floats = rng.standard_t(3, shape) / np.sqrt(3)
        return heavy
    if kind == "exponential":
        slow: Floats = rng.standard_exponential(shape) - 1
        return slow
    return rng.standard_normal(shape)


def _nights(noise: Noise, rng: np.random.Generator, *, layout: Layout, nights: int) -> Floats:
    """Draw what all runs of a cell in one night share, shape ``(nights, 1, cells, metrics)``."""
    drawn = correlated("normal", rng, (nights, 1, layout.cells, len(SIMULATED)))
    keep = noise.night_correlation
    if keep:
        for night in range(1, nights):
            drawn[night] = keep * drawn[night - 1] + np.sqrt(1 - keep**2) * drawn[night]
    return drawn


def _slowed_runs(noise: Noise, rng: np.random.Generator, *, layout: Layout, nights: int) -> Floats:
    """Draw the slowdown of whole runs, logarithm, shape ``(nights, starts, cells)``."""
    slowed = np.zeros((nights, STARTS, layout.cells))
    if noise.slowed_runs:
        slowed += slowdowns(rng, slowed.shape, noise.slowed_runs)
    if noise.slowed_nights:
        runs = slice(0, 1) if noise.reruns_elsewhere else slice(None)
        slowed[:, runs] += slowdowns(rng, (nights, 1, layout.cells), noise.slowed_nights)
    if noise.slow_starts:
        slow = rng.random((nights, STARTS, layout.topologies)) < noise.slow_starts
        slowed += np.log1p(noise.slow_start) * np.repeat(slow, layout.cells_each, axis=2)
    return slowed


def _slow_node(noise: Noise, rng: np.random.Generator, *, layout: Layout, nights: int) -> Floats:
    """Draw the slowdown of runs on the slow node; every night and start takes the next node."""
    if not noise.nodes:
        return np.zeros((nights, STARTS, layout.cells))
    night, start, topology = np.ogrid[:nights, :STARTS, : layout.topologies]
    on_it = (night + start + topology + rng.integers(noise.nodes)) % noise.nodes == 0
    slower: Floats = np.log1p(noise.slow_node) * np.repeat(on_it, layout.cells_each, axis=2)
    return slower


def slowdowns(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> Floats:
    """Draw the slowdown of whole runs, logarithm; 0 for all but a share of them."""
    sizes = np.log1p(rng.uniform(*SLOWED, shape))
    return np.where(rng.random(shape) < share, sizes, 0.0)
