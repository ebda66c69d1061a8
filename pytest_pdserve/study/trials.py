"""Trials: simulated nights of many systems, and counts of their verdicts."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.study.noise import ITL_LIKE
from pytest_pdserve.study.noise import SIMULATED
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Noise
from pytest_pdserve.study.noise import draw
from pytest_pdserve.study.rates import Tally
from pytest_pdserve.study.series import JudgedNight
from pytest_pdserve.study.series import System
from pytest_pdserve.study.simple_rules import SIMPLE_RULES
from pytest_pdserve.study.simple_rules import failed_cells
from pytest_pdserve.values.rules import RULE

LAYOUT = Layout()
"""Topologies and cells of every trial."""
MONTH = RULE.false_alarm_nights
"""Number of nights of a clean series: as many as the rule considers."""
WITHIN = 3
"""Number of nights within which a small change should be found."""
YOUNG = (1, 2, 3, 8, 15)
"""Numbers of nights of the growing baselines; from 15 on, limits are the normal ones."""
DRIFT = 0.003
"""Growth of a slowdown from night to night."""
DRIFT_NIGHTS = 30
"""Number of nights for which it grows."""
Night = tuple[System, JudgedNight]
"""The system before a night, and the verdicts on the night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that is planted into every run of a night."""

    size: float
    """Change as a fraction: 0.05 is a latency times 1.05 (worse), -0.05 one divided by 1.05."""
    cells: Sequence[int]
    """Indices of the cells that change."""
    metrics: Sequence[int] = ITL_LIKE
    """Indices of the metrics that change."""

    def planted(self, draws: Floats) -> Floats:
        """Return the runs with the change, shape ``(starts, cells, metrics)``."""
        changed = draws.copy()
        log = np.copysign(np.log1p(abs(self.size)), self.size)
        changed[np.ix_(range(len(draws)), list(self.cells), list(self.metrics))] += log
        return changed


ONE_OF_EACH = tuple(LAYOUT.cells_of(topology)[0] for topology in range(LAYOUT.topologies))
"""One cell of every topology, so that planted changes do not affect each other."""


def judge_nights(system: System, nights: Sequence[Floats]) -> Iterator[Night]:
    """Judge nights in a row; yield each with the system before it."""
    for draws in nights:
        judged = system.judge(draws)
        yield system, judged
        system = system.after(judged)


def _with_baseline(noise: Noise, rng: np.random.Generator, nights: int) -> tuple[System, Floats]:
    """Return a system with a full baseline, and the draws of the nights after it."""
    draws = draw(noise, rng, layout=LAYOUT, baseline=RULE.max_nights, nights=nights)
    baseline, after = np.split(draws, [RULE.max_nights])
    return System.with_baseline(LAYOUT, baseline[:, 0]), after


def clean(noise: Noise, rng: np.random.Generator) -> Tally:
    """Count the verdicts of a month without a change, or of three months if slow nights persist."""
    tally = Tally()
    months = 3 if noise.is_sticky else 1
    system, draws = _with_baseline(noise, rng, months * MONTH + WITHIN)
    nights = list(judge_nights(system, list(draws[: months * MONTH])))
    _count_clean(tally, "", nights[:MONTH])
    if noise.is_sticky:
        _count_clean(tally, "later ", nights[MONTH:])
        after, change = nights[-1][0].after(nights[-1][1]), Change(size=0.10, cells=ONE_OF_EACH)
        _count_found(tally, "later 10 %", after, nights=list(draws[-WITHIN:]), change=change)
    reference = system.references.cells
    for name, runs in SIMPLE_RULES.items():
        failed = [failed_cells(reference.median, night, runs=runs) for night in draws[:MONTH]]
        tally.count(name, sum(bool(cells.any()) for cells in failed), len(failed))
    for metric in ("mean_itl_ms", "mean_ttft_ms", "p99_ttft_ms"):
        tally.sample(metric, np.expm1(reference.limit[:, SIMULATED.index(metric)]).tolist())
    return tally


def _count_clean(tally: Tally, when: str, nights: Sequence[Night]) -> None:
    judged = [night for _, night in nights]
    many, cells = len(nights), len(nights) * LAYOUT.cells
    in_cells = [Status.FAIL in night.cells.values() for night in judged]
    in_topologies = [Status.FAIL in night.topologies.values() for night in judged]
    either = [any(pair) for pair in zip(in_cells, in_topologies, strict=True)]
    tally.count(f"{when}FAIL", sum(either), many)
    tally.count(f"{when}cells FAIL", sum(in_cells), many)
    tally.count(f"{when}topologies FAIL", sum(in_topologies), many)
    tally.count(f"{when}strict", sum(bool(n.cells or n.topologies) for n in judged), many)
    tally.count(f"{when}not PASS", sum(len(night.cells) for night in judged), cells)
    reruns = sum(night.reruns + night.topology_reruns for night in judged)
    tally.count(f"{when}reruns", reruns, cells)
    tally.count(f"{when}topology reruns", sum(night.topology_reruns for night in judged), cells)
    better = sum(bool(system.better(night.runs)) for system, night in nights)
    tally.count(f"{when}better", better, many)


def _count_found(
    tally: Tally, what: str, system: System, *, nights: Sequence[Floats], change: Change
) -> None:
    """Count the changed cells that FAIL on the first of *nights*, and on any of them."""
    failed: set[int] = set()
    planted = judge_nights(system, [change.planted(draws) for draws in nights])
    for number, (_, night) in enumerate(planted):
        failed |= {cell for cell in change.cells if night.cells.get(cell) is Status.FAIL}
        if number == 0:
            tally.count(f"{what} same night", len(failed), len(change.cells))
    if len(nights) > 1:
        tally.count(f"{what} {len(nights)} nights", len(failed), len(change.cells))


def planted(noise: Noise, rng: np.random.Generator) -> Tally:
    """Count the changes that are found; all are planted into the same nights, one at a time."""
    tally = Tally()
    system, draws = _with_baseline(noise, rng, WITHIN)
    nights = list(draws)
    metric = int(rng.choice(ITL_LIKE))
    of_cells = {
        "5 %": Change(size=0.05, cells=ONE_OF_EACH),
        "one metric 5 %": Change(size=0.05, cells=ONE_OF_EACH, metrics=(metric,)),
        "10 %": Change(size=0.10, cells=ONE_OF_EACH),
    }
    for what, change in of_cells.items():
        _count_found(tally, what, system, nights=nights, change=change)
    _count_topologies(tally, "topology 5 %", system, nights=nights[:1], size=0.05)
    _count_topologies(tally, "topology 3 %", system, nights=nights, size=0.03)
    _count_better(tally, system, nights)
    for name, runs in SIMPLE_RULES.items():
        for what in ("5 %", "10 %"):
            changed = of_cells[what].planted(nights[0])
            failed = failed_cells(system.references.cells.median, changed, runs=runs)
            tally.count(f"{name} {what}", int(failed[list(ONE_OF_EACH)].sum()), len(ONE_OF_EACH))
    return tally


def _count_topologies(
    tally: Tally, what: str, system: System, *, nights: Sequence[Floats], size: float
) -> None:
    """Count the topologies whose median FAILs on any of *nights*, changing one at a time."""
    found = 0
    for topology in range(LAYOUT.topologies):
        change = Change(size=size, cells=LAYOUT.cells_of(topology))
        planted = judge_nights(system, [change.planted(draws) for draws in nights])
        found += any(night.topologies.get(topology) is Status.FAIL for _, night in planted)
    tally.count(what, found, LAYOUT.topologies)


def _count_better(tally: Tally, system: System, nights: Sequence[Floats]) -> None:
    """Count the cells that are reported as better if they are 5 % better on all *nights*."""
    change = Change(size=-0.05, cells=ONE_OF_EACH)
    for before, night in judge_nights(system, [change.planted(draws) for draws in nights]):
        noticed = {cell for scope, cell, _ in before.better(night.runs) if scope == "cell"}
    tally.count("better", len(noticed.intersection(ONE_OF_EACH)), len(ONE_OF_EACH))


def drift(noise: Noise, rng: np.random.Generator) -> Tally:
    """Measure the size at which a slowdown that grows every night is found."""
    tally = Tally()
    system, draws = _with_baseline(noise, rng, DRIFT_NIGHTS)
    grown = [
        Change(size=DRIFT * (night + 1), cells=ONE_OF_EACH).planted(runs)
        for night, runs in enumerate(draws)
    ]
    sizes: dict[int, float] = {}
    for number, (_, night) in enumerate(judge_nights(system, grown)):
        for cell in ONE_OF_EACH:
            if night.cells.get(cell) is Status.FAIL:
                sizes.setdefault(cell, DRIFT * (number + 1))
        if len(sizes) == len(ONE_OF_EACH):
            break
    tally.sample("size", [sizes.get(cell, np.inf) for cell in ONE_OF_EACH])
    return tally


def young(noise: Noise, rng: np.random.Generator) -> Tally:
    """Count the verdicts of the first nights, if the first one has three starts, or one."""
    tally = Tally()
    draws = draw(noise, rng, layout=LAYOUT, baseline=1, nights=max(YOUNG))
    for starts in (RULE.first_starts, 1):
        system = System.new(LAYOUT, draws[0], starts=starts)
        for number, (before, night) in enumerate(judge_nights(system, list(draws[1:])), start=1):
            if number in YOUNG:
                statuses = {*night.cells.values(), *night.topologies.values()}
                tally.count(f"{starts} FAIL {number}", Status.FAIL in statuses, 1)
                change, what = Change(size=0.10, cells=ONE_OF_EACH), f"{starts} 10 % {number}"
                _count_found(tally, what, before, nights=[draws[number]], change=change)
    return tally


Trial = Callable[[Noise, np.random.Generator], Tally]
TRIALS: Mapping[str, tuple[Trial, int]] = {
    "clean": (clean, MONTH),
    "planted": (planted, MONTH // 2),
    "young": (young, MONTH // 2),
    "drift": (drift, 2 * MONTH),
}
"""Each trial, with the number of ``--nights`` that one series of it accounts for."""
