"""Kinds of noise of upgrade gates, and gates drawn from them. Simulated throughout.

A value is a logarithm, signed so that larger is worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytest_pdserve.study.gate_gpu_runs import GPU_STARTS
from pytest_pdserve.study.gate_gpu_runs import METRIC_NAMES
from pytest_pdserve.study.gate_gpu_runs import deviations
from pytest_pdserve.study.gate_gpu_runs import spreads
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Shape
from pytest_pdserve.study.noise import correlated
from pytest_pdserve.study.noise import slowdowns
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.rules import GATE_RULE

STARTS = 4
"""Starts of a block, in the order A B B A."""
TTFT_SPREADS = 2.0
"""Ratio of the spread of mean TTFT to those of the other metrics."""
TTFT = METRIC_NAMES.index("mean_ttft_ms")
ITL_LIKE = tuple(place for place, _ in enumerate(METRIC_NAMES) if place != TTFT)
"""Indices of the metrics whose margin is 3 %."""
GPU_TOPOLOGIES = ("1p3d", "route4")
GPU_PROMPTS = (512, 4096)
"""Prompt lengths measured on GPUs; simulated cells take the measured cells in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateNoise:
    """One kind of noise: how runs of one stack differ."""

    name: str
    """Name for ``--noise`` and tables."""
    about: str
    """Description in one sentence."""
    spread: float = 0.01
    """Standard deviation of one run, logarithm; twice as large for mean TTFT."""
    shape: Shape = "normal"
    """Distribution of what differs from run to run."""
    start_share: float = 0.3
    """Share of the variance that all cells of a topology share on one start."""
    slowed_runs: float = 0.0
    """Share of runs that are slowed by 5 to 50 % in every metric."""
    slow_starts: float = 0.0
    """Share of starts of a topology that are slow in all cells."""
    slow_start: float = 0.025
    """Slowdown of these starts, as a fraction."""
    drift: float = 0.0
    """Change of a topology's nodes from the first start of eight blocks to the last, logarithm, up
    or down."""
    wander: float = 0.0
    """Standard deviation of a topology's random walk from start to start, logarithm."""
    spread_of_spreads: float = 0.0
    """Standard deviation of the logarithm of the spread from cell to cell and metric to metric."""
    noisy_cells: float = 0.0
    """Probability that a cell is four times as noisy."""
    drawn: Callable[[np.random.Generator, Layout, int, int], Floats] | None = None
    """Function that draws the runs instead of all of the above, from generator, layout, gates and
    starts; returns shape ``(gates, starts, cells, metrics)``."""


def draw_gates(
    noise: GateNoise, rng: np.random.Generator, *, layout: Layout, gates: int, blocks: int
) -> Floats:
    """Draw every run that gates may make of two equal stacks.

    :returns: shape ``(gates, blocks, stacks, starts, cells, metrics)``.
    """
    starts = STARTS * blocks
    if noise.drawn is not None:
        runs = noise.drawn(rng, layout, gates, starts)
    else:
        runs = _runs(noise, rng, layout=layout, shape=(gates, starts))
    in_blocks = runs.reshape(gates, blocks, STARTS, *runs.shape[2:])
    by_stack: Floats = np.stack([in_blocks[:, :, [0, 3]], in_blocks[:, :, [1, 2]]], axis=2)
    return by_stack


def _runs(
    noise: GateNoise, rng: np.random.Generator, *, layout: Layout, shape: tuple[int, int]
) -> Floats:
    """Draw runs in the order of their starts, ``(gates, starts, cells, metrics)``."""
    metrics = len(METRIC_NAMES)
    own = correlated(noise.shape, rng, (*shape, layout.cells, metrics))
    common = correlated(noise.shape, rng, (*shape, layout.topologies, metrics))
    runs: Floats = np.sqrt(1 - noise.start_share) * own
    runs += np.sqrt(noise.start_share) * _of_cells(common, layout)
    sds = np.full((shape[0], 1, layout.cells, metrics), noise.spread)
    sds[..., TTFT] *= TTFT_SPREADS
    if noise.spread_of_spreads:
        widths, uneven = rng.standard_normal(sds.shape), noise.spread_of_spreads
        sds *= np.exp(uneven * widths - uneven**2 / 2)
    if noise.noisy_cells:
        sds *= np.where(rng.random((*sds.shape[:3], 1)) < noise.noisy_cells, 4.0, 1.0)
    runs *= sds
    if noise.slowed_runs:
        runs += slowdowns(rng, (*shape, layout.cells, 1), noise.slowed_runs)
    runs += _of_cells(_of_nodes(noise, rng, (*shape, layout.topologies, 1)), layout)
    return runs


def _of_nodes(
    noise: GateNoise, rng: np.random.Generator, shape: tuple[int, int, int, int]
) -> Floats:
    """Return the slowdown of whole starts, ``(gates, starts, topologies, 1)``."""
    slowdown = np.zeros(shape)
    if noise.slow_starts:
        slowdown += np.log1p(noise.slow_start) * (rng.random(shape) < noise.slow_starts)
    if noise.drift:
        ahead = np.arange(shape[1]) / (STARTS * GATE_RULE.max_blocks - 1)
        side = rng.choice((-1.0, 1.0), (shape[0], 1, *shape[2:]))
        slowdown += noise.drift * side * ahead[:, None, None]
    if noise.wander:
        slowdown += np.cumsum(noise.wander * rng.standard_normal(shape), axis=1)
    return slowdown


def _of_cells(by_topology: Floats, layout: Layout) -> Floats:
    """Repeat the values of topologies for each of their cells."""
    return np.repeat(by_topology, layout.cells_each, axis=2)


def _gpu_cells(layout: Layout) -> list[tuple[str, int]]:
    """Return the measured cell that each simulated cell imitates."""
    return [
        (GPU_TOPOLOGIES[topology % len(GPU_TOPOLOGIES)], GPU_PROMPTS[cell % len(GPU_PROMPTS)])
        for topology in range(layout.topologies)
        for cell in range(layout.cells_each)
    ]


def _gpu_normal(rng: np.random.Generator, layout: Layout, gates: int, starts: int) -> Floats:
    """Draw normal noise with the spreads that were measured, between starts and within one."""
    metrics = len(METRIC_NAMES)
    sds = [spreads(*cell) for cell in _gpu_cells(layout)]
    between, within = (np.array([both[part] for both in sds]) for part in (0, 1))
    common = correlated("normal", rng, (gates, starts, layout.topologies, metrics))
    own = correlated("normal", rng, (gates, starts, layout.cells, metrics))
    runs: Floats = between * _of_cells(common, layout) + within * own
    return runs


def _gpu_resampled(rng: np.random.Generator, layout: Layout, gates: int, starts: int) -> Floats:
    """Draw measured runs: a random measured start for each start, and a random run of it."""
    runs = np.empty((gates, starts, layout.cells, len(METRIC_NAMES)))
    drawn = rng.integers(GPU_STARTS, size=(gates, starts, layout.topologies))
    for cell, measured in enumerate(_gpu_cells(layout)):
        start = drawn[:, :, cell // layout.cells_each]
        by_start = deviations(*measured)
        first = np.cumsum([0, *map(len, by_start)])
        within = (
            rng.random(start.shape)
            * np.array([len(runs_of_start) for runs_of_start in by_start])[start]
        )
        runs[:, :, cell] = np.concatenate(by_start)[first[start] + within.astype(int)]
    return runs


REFERENCE = GateNoise(name="reference", about="Normal noise of 1 %, mean TTFT 2 %.")
KINDS = (
    REFERENCE,
    GateNoise(
        name="no-start", about="The same, and nothing is shared on a start.", start_share=0.0
    ),
    GateNoise(name="starts", about="80 % of the variance is the server start's.", start_share=0.8),
    GateNoise(name="t3", about="Student's t of 3 degrees of freedom.", shape="t3"),
    GateNoise(
        name="slowed-1", about="One run in a hundred is slowed by 5 to 50 %.", slowed_runs=0.01
    ),
    GateNoise(
        name="slowed-2", about="Two runs in a hundred are slowed by 5 to 50 %.", slowed_runs=0.02
    ),
    GateNoise(name="drift", about="Nodes get 2 % slower or faster over eight blocks.", drift=0.02),
    GateNoise(name="wander", about="Nodes wander by 0.5 % from start to start.", wander=0.005),
    GateNoise(
        name="bimodal", about="One start of a topology in five is 2.5 % slow.", slow_starts=0.2
    ),
    GateNoise(
        name="uneven",
        about="Spreads differ by 35 % from cell to cell and metric to metric.",
        spread_of_spreads=0.35,
    ),
    GateNoise(name="very-uneven", about="Spreads differ by 70 %.", spread_of_spreads=0.7),
    GateNoise(name="noisy-cells", about="One cell in 20 is four times as noisy.", noisy_cells=0.05),
    GateNoise(name="spread-2", about="Noise of 2 %, mean TTFT 4 %.", spread=0.02),
    GateNoise(name="spread-3", about="Noise of 3 %, mean TTFT 6 %.", spread=0.03),
    GateNoise(name="gpu-normal", about="Normal noise as large as on GPUs.", drawn=_gpu_normal),
    GateNoise(
        name="gpu-runs", about="Real runs on GPUs, drawn again and again.", drawn=_gpu_resampled
    ),
)
"""Every kind, in the order of the tables."""


def gate_noise_named(name: str) -> GateNoise:
    """Return the kind of noise with this name.

    :raises ConfigError: if there is none.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    names = ", ".join(kind.name for kind in KINDS)
    raise ConfigError(
        f"--noise {name!r:.60} is not a kind of noise of gates, expected one of {names}"
    )
