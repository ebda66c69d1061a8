"""What a night's judgement costs beside tests that one would write by hand; ratios of one run.

Simulated: 45 cells x 8 metrics of the reference profile, baselines of 20 runs, six nights before,
three runs tonight. ``python benchmarks/judge_speed.py [ROUNDS]``
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy import stats

from pytest_pdserve.judge import estimation
from pytest_pdserve.judge import evidence
from pytest_pdserve.judge import night
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import draw
from pytest_pdserve.study.profile import REFERENCE
from pytest_pdserve.values.rules import Rules

RESAMPLES = 999


def main(rounds: int) -> None:
    """Print seconds of each way to judge the same night, and how many times pdserve's they are."""
    layout, rules = Layout(), Rules()
    draws = draw(REFERENCE, np.random.default_rng(1), layout=layout, replications=1, nights=1)
    base, runs = draws.baseline[0], draws.nights[0, -1, ..., :3]

    def expected() -> estimation.Envelopes:
        return estimation.envelopes_from_runs(base, REFERENCE.metrics, layout.families, rules=rules)

    past = None
    for before in estimation.signed_log(draws.nights[0, :-1], REFERENCE.metrics):
        one = evidence.night_of(before[..., :1], expected(), clip=rules.clip)
        past = evidence.with_tonight(past, one)

    def judged() -> None:
        night.verdicts(night.State.of(expected(), runs, rules=rules, past=past))

    ways: dict[str, Callable[[], None]] = {
        "pdserve: envelopes, tonight, three windows, families": judged,
        "scipy.stats.ttest_ind (Welch), a call a test, tonight only": lambda: welch(base, runs),
        f"scipy.stats.bootstrap, {RESAMPLES} resamples, tonight only": lambda: boot(base, runs),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    ours = statistics.median(next(iter(seconds.values())))
    for name, taken in seconds.items():
        median = statistics.median(taken)
        spread = f"{min(taken):.4f} to {max(taken):.4f}"
        sys.stdout.write(f"{median:9.4f} s ({spread})  {median / ours:8.1f} x  {name}\n")


def welch(base: Floats, runs: Floats) -> None:
    """Welch's t on logs, one test after the other."""
    for place in np.ndindex(base.shape[:2]):
        stats.ttest_ind(np.log(base[place]), np.log(runs[place]), equal_var=False)


def boot(base: Floats, runs: Floats) -> None:
    """A percentile interval of the difference of mean logs, one test after the other."""
    rng = np.random.default_rng(2)
    for place in np.ndindex(base.shape[:2]):
        stats.bootstrap(
            (np.log(base[place]), np.log(runs[place])),
            lambda a, b, axis: a.mean(axis) - b.mean(axis),
            n_resamples=RESAMPLES,
            method="percentile",
            rng=rng,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
