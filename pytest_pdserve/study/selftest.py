"""Self-test of the nightly rule: simulated nights, their verdicts, and the targets."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from dataclasses import field
from typing import TypeVar

import numpy as np

from pytest_pdserve.study.noise import KINDS
from pytest_pdserve.study.noise import Noise
from pytest_pdserve.study.noise import noise_named
from pytest_pdserve.study.rates import Rate
from pytest_pdserve.study.rates import Tally
from pytest_pdserve.study.trials import TRIALS
from pytest_pdserve.values.errors import ConfigError

AnyTask = TypeVar("AnyTask")
MAX_NIGHTS = 1_000_000
"""Largest number of nights, which takes hours."""
CHUNK = 5
"""Series that one task judges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on a rate that every kind of noise must meet."""

    what: str
    """Description of the rate."""
    trial: str
    """Name of the trial that counts it."""
    key: str
    """Name of the rate in the tally."""
    at_most: float | None = None
    """Largest share; None if :attr:`at_least` is set."""
    at_least: float | None = None
    """Smallest share; None if :attr:`at_most` is set."""
    exceptions: Mapping[str, float] = field(default_factory=dict)
    """Other bounds, by kind of noise."""

    def bound(self, noise: str) -> float:
        """Return the bound for a kind of noise."""
        bound = self.at_least if self.at_most is None else self.at_most
        assert bound is not None
        return self.exceptions.get(noise, bound)

    def missed(self, noise: str, rate: Rate) -> bool:
        """Return whether the whole interval of *rate* is beyond the bound."""
        low, high = rate.interval
        return low > self.bound(noise) if self.at_least is None else high < self.bound(noise)


TARGETS = (
    Target(what="false FAIL nights", trial="clean", key="FAIL", at_most=0.01),
    Target(what="false FAIL nights, later", trial="clean", key="later FAIL", at_most=0.02),
    Target(
        what="reruns per cell-night",
        trial="clean",
        key="reruns",
        at_most=0.10,
        exceptions={"bimodal": 0.40, "bad-node": 0.20},
    ),
    Target(what="cells that are not PASS", trial="clean", key="not PASS", at_most=0.005),
    Target(
        what="5 % of a cell found the same night",
        trial="planted",
        key="5 % same night",
        at_least=0.95,
        exceptions={"bimodal": 0.78},
    ),
    Target(
        what="5 % of a cell found within 3 nights",
        trial="planted",
        key="5 % 3 nights",
        at_least=0.99,
        exceptions={"bimodal": 0.90},
    ),
    Target(
        what="10 % of a cell found the same night",
        trial="planted",
        key="10 % same night",
        at_least=0.95,
    ),
    Target(
        what="5 % of a topology found the same night",
        trial="planted",
        key="topology 5 %",
        at_least=0.98,
    ),
    Target(
        what="3 % of a topology found within 3 nights",
        trial="planted",
        key="topology 3 %",
        at_least=0.90,
    ),
)
"""Bounds that the nightly rule must meet (docs/judging.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The counts of one self-test."""

    nights: int
    """Number of clean nights of each kind."""
    seed: int
    """Seed of every draw."""
    tallies: Mapping[str, Mapping[str, Tally]]
    """Counts by kind of noise and by trial."""

    @property
    def kinds(self) -> tuple[Noise, ...]:
        """Kinds of noise that were drawn."""
        return tuple(noise_named(name) for name in self.tallies)

    def rate(self, noise: Noise, trial: str, what: str) -> Rate:
        """Return a rate of a trial with a kind of noise."""
        return self.tallies[noise.name][trial].rate(what)

    @property
    def missed(self) -> tuple[str, ...]:
        """A phrase for each target that is missed by more than chance."""
        return tuple(self._missed())

    def _missed(self) -> Iterator[str]:
        for noise in self.kinds:
            for target in TARGETS:
                rate = self.rate(noise, target.trial, target.key)
                if _applies(target, noise) and target.missed(noise.name, rate):
                    low, high = (100 * end for end in rate.interval)
                    side = "at most" if target.at_least is None else "at least"
                    yield (
                        f"{noise.name}: {target.what} {100 * rate.share:.2f} % ({low:.2f} to "
                        f"{high:.2f}), target {side} {100 * target.bound(noise.name):g} %"
                    )


def _applies(target: Target, noise: Noise) -> bool:
    """Return whether a kind of noise must meet a target.

    Sticky nights need not meet the target of the first month.
    """
    return noise.fits_floors and not (noise.is_sticky and target.key == "FAIL")


def selftest(*, nights: int, seed: int, noise: str | None = None, workers: int = 1) -> Report:
    """Judge simulated nights and count their verdicts.

    :param nights: number of clean nights of each kind of noise.
    :param noise: name of the one kind to draw; None for all.
    :param workers: processes; the figures do not depend on them.
    :raises ConfigError: if the kind is unknown, or a number is out of range.
    """
    if not 1 <= nights <= MAX_NIGHTS:
        raise ConfigError(f"--nights {nights!s:.30}: expected 1 to {MAX_NIGHTS:,}")
    check_numbers(seed=seed, workers=workers)
    kinds = [noise_named(noise)] if noise is not None else KINDS
    tasks = list(_tasks(kinds, nights, seed))
    tallies = {kind.name: {trial: Tally() for trial in TRIALS} for kind in kinds}
    for (kind, trial, *_), tally in zip(tasks, count_tasks(_count, tasks, workers), strict=True):
        tallies[kind][trial].add(tally)
    return Report(nights=nights, seed=seed, tallies=tallies)


def check_numbers(*, seed: int, workers: int) -> None:
    """Raise ConfigError if a seed or a number of processes is out of range."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"--seed {seed!s:.30}: expected 0 to 2^63 - 1")
    if not 1 <= workers <= 64:
        raise ConfigError(f"--workers {workers!s:.30}: expected 1 to 64")


Task = tuple[str, str, int, int, int]
"""Kind of noise, trial, seed, number of the chunk, series in it."""


def _tasks(kinds: Sequence[Noise], nights: int, seed: int) -> Iterator[Task]:
    for kind in kinds:
        for trial, (_, nights_each) in TRIALS.items():
            series = -(-nights // nights_each)
            for chunk, first in enumerate(range(0, series, CHUNK)):
                yield kind.name, trial, seed, chunk, min(CHUNK, series - first)


def count_tasks(
    count: Callable[[AnyTask], Tally], tasks: Sequence[AnyTask], workers: int
) -> Iterable[Tally]:
    """Yield the tally of each task, in the order of tasks.

    :param count: a module-level function, so that worker processes can import it.
    :param workers: number of processes.
    """
    if workers == 1:
        yield from map(count, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts) as pool:
        try:
            yield from pool.map(count, tasks)
        finally:
            pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C, which the parent process handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _count(task: Task) -> Tally:
    name, trial, seed, chunk, series = task
    key = [kind.name for kind in KINDS].index(name), list(TRIALS).index(trial), chunk
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    tally = Tally()
    for _ in range(series):
        tally.add(TRIALS[trial][0](noise_named(name), rng))
    return tally
