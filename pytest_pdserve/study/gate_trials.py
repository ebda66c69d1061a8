"""Trials of the upgrade gate: simulated gates, and counts of their verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pytest_pdserve.judge.gate.block_arrays import Gates
from pytest_pdserve.judge.gate.block_arrays import Subjects
from pytest_pdserve.judge.gate.block_arrays import forecast
from pytest_pdserve.study.gate_gpu_runs import METRIC_NAMES
from pytest_pdserve.study.gate_noise import ITL_LIKE
from pytest_pdserve.study.gate_noise import KINDS
from pytest_pdserve.study.gate_noise import REFERENCE
from pytest_pdserve.study.gate_noise import GateNoise
from pytest_pdserve.study.gate_noise import draw_gates
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.rates import Rate
from pytest_pdserve.study.rates import Tally
from pytest_pdserve.study.trials import LAYOUT
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import GATE_RULE

Place = Literal["a cell", "one metric", "a topology", "everywhere"]
Bools = npt.NDArray[np.bool_]
LAYOUTS: Mapping[str, Layout] = {
    "40 cells": LAYOUT,
    "8 cells": Layout(topologies=2, cells_each=4),
}
"""Topologies and cells that gates measure, by name."""
MARGINS = tuple(METRICS.gate_margins[name] for name in METRIC_NAMES)
"""Margin of each metric, as a fraction."""
SIMPLE_RULES: Mapping[str, int] = {"one run": 1, "three runs": 3}
"""Simple rules for comparison: number of runs of each stack whose medians are compared."""
SIMPLE_RULE_LIMITS = tuple(0.10 if name == "mean_ttft_ms" else 0.05 for name in METRIC_NAMES)
"""Change above which these rules give NO-GO, by metric, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTrial:
    """One row of the tables: gates of one kind."""

    noise: GateNoise
    """Noise of the runs."""
    size: float = 0.0
    """Change of B for the worse, as a fraction: 0.05 is a latency times 1.05."""
    where: Place = "everywhere"
    """Part that is worse; its cell, topology and metric (one of the four ITL-like ones) are drawn
    for every gate."""

    @property
    def name(self) -> str:
        """The row's name: noise and change."""
        return f"{self.noise.name}: {self.change}"

    @property
    def change(self) -> str:
        """Description of how B differs from A."""
        if not self.size:
            return "equal"
        inside = self.where if self.where == "everywhere" else f"in {self.where}"
        return f"{100 * self.size:g} % {inside}"

    def planted(self, rng: np.random.Generator, runs: Floats, layout: Layout) -> Floats:
        """Return the runs with the change in those of B."""
        if not self.size:
            return runs
        gates = np.arange(len(runs))
        worse = np.zeros((len(runs), layout.cells, len(METRIC_NAMES)), dtype=bool)
        cells = rng.integers(layout.cells, size=len(runs))
        if self.where == "a cell":
            worse[gates, cells] = True
        elif self.where == "one metric":
            worse[gates, cells, rng.choice(ITL_LIKE, len(runs))] = True
        elif self.where == "a topology":
            topologies = np.arange(layout.cells) // layout.cells_each
            worse[:] = (topologies == topologies[cells][:, None])[:, :, None]
        else:
            worse[:] = True
        changed = runs.copy()
        changed[:, :, 1] += np.log1p(self.size) * worse[:, None, None]
        return changed


TRIALS = (
    *(GateTrial(noise=kind) for kind in KINDS),
    *(GateTrial(noise=kind, size=0.05, where="a cell") for kind in KINDS),
    GateTrial(noise=REFERENCE, size=0.05, where="one metric"),
    GateTrial(noise=REFERENCE, size=0.05, where="a topology"),
    GateTrial(noise=REFERENCE, size=0.05),
    GateTrial(noise=REFERENCE, size=0.03, where="a cell"),
    GateTrial(noise=REFERENCE, size=0.03, where="one metric"),
    GateTrial(noise=REFERENCE, size=0.03),
    GateTrial(noise=REFERENCE, size=0.02, where="a cell"),
    GateTrial(noise=REFERENCE, size=0.02),
    *(GateTrial(noise=kind, size=0.10, where="a cell") for kind in KINDS if kind.drawn),
    *(GateTrial(noise=kind, size=0.05) for kind in KINDS if kind.drawn),
)
"""Every row."""


def count_gates(trial: GateTrial, rng: np.random.Generator, *, layout: Layout, gates: int) -> Tally:
    """Judge simulated gates and count their verdicts."""
    runs = draw_gates(trial.noise, rng, layout=layout, gates=gates, blocks=GATE_RULE.max_blocks)
    runs = trial.planted(rng, runs, layout)
    tally = judge_runs(runs, layout)
    for name, many in SIMPLE_RULES.items():
        _count(tally, name, simple_rule_fails(runs, runs_each=many), gates)
    return tally


def judge_runs(runs: Floats, layout: Layout) -> Tally:
    """Judge gates block by block, each until its verdict, and count the verdicts.

    :param runs: all runs that may be measured, shape ``(gates, blocks, stacks, starts, cells,
        metrics)``.
    """
    members = [layout.cells_of(topology) for topology in range(layout.topologies)]
    gates = Gates.unmeasured(gates=len(runs), members=members, margins=MARGINS)
    tally, open_gates = Tally(), np.arange(len(runs))
    measured = np.zeros(len(runs))
    for number in range(runs.shape[1]):
        if not len(open_gates):
            break
        wanted = gates.wanted
        measured[open_gates] += wanted.mean(axis=1)
        block = runs[open_gates, number]
        gates = gates.after(np.where(wanted[:, None, None, :, None], block, np.nan))
        no_go = gates.no_go
        go = ~no_go & gates.go
        for verdict, ended in (("NO-GO", no_go), ("GO", go)):
            _count(tally, verdict, ended, 0)
            tally.sample(f"blocks to {verdict}", [number + 1.0] * int(ended.sum()))
        undecided = ~no_go & ~go
        gates, open_gates = gates.of(undecided), open_gates[undecided]
    for verdict in ("NO-GO", "GO"):
        _count(tally, verdict, np.zeros(0, dtype=bool), len(runs))
    _count(tally, "not enough", np.ones(len(open_gates), dtype=bool), len(runs))
    tally.sample("blocks of a cell", measured.tolist())
    if len(open_gates):
        needed = forecasts(gates)
        _count(tally, "without forecast", np.isnan(needed), len(needed))
        tally.sample("forecast", needed.tolist())
    return tally


def forecasts(gates: Gates) -> Floats:
    """Return the blocks that would decide all undecided metrics, by gate; NaN if unknown."""
    parts = [_forecast(part, gates.margins) for part in (gates.cells, gates.topologies)]
    needed: Floats = np.max(parts, axis=0)
    return needed


def _forecast(part: Subjects, margins: Floats) -> Floats:
    needed = forecast(part.blocks, part.bounds, margins)
    open_metrics = part.measured & ~part.good
    largest: Floats = np.where(open_metrics, needed, 0.0).max(axis=(1, 2))
    return largest


def simple_rule_fails(runs: Floats, *, runs_each: int) -> Bools:
    """Return which gates are NO-GO if medians of a few runs of each stack are compared."""
    by_stack = np.moveaxis(runs, 2, 1)
    in_turn = by_stack.reshape(*by_stack.shape[:2], -1, *runs.shape[4:])[:, :, :runs_each]
    medians = np.median(in_turn, axis=2)
    worse: Bools = medians[:, 1] - medians[:, 0] > np.log1p(SIMPLE_RULE_LIMITS)
    return np.asarray(worse.any(axis=(1, 2)))


def _count(tally: Tally, what: str, hits: Bools, of: int) -> None:
    """Add gates, which are independent of each other."""
    tally.rates[what] = tally.rate(what) + Rate(hits=float(hits.sum()), of=of)
