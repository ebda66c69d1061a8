"""What the judge and the naive rules find, and what they cry wolf over, on simulated nights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
from scipy import special

from pytest_pdserve.judge import estimation
from pytest_pdserve.judge import evidence
from pytest_pdserve.judge import night
from pytest_pdserve.judge.estimation import Bools
from pytest_pdserve.judge.estimation import Floats
from pytest_pdserve.study.noise import Draws
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Regression
from pytest_pdserve.study.noise import draw
from pytest_pdserve.study.profile import NoiseProfile
from pytest_pdserve.values.rules import Rules

JUDGE = "pdserve"
"""Name of the judge among the rules."""
WITHIN = (1, 3, 7)
"""Nights within which a regression counts as found."""
CLEAN_NIGHTS = 10
"""Clean nights that are judged against one baseline; a longer series would repeat its luck."""
CHUNK = 40
"""Replications that are drawn at once, for the sake of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one rule called worse.

    Shape ``(replications, nights, cells, metrics)``, or families in place of cells.
    """

    rule: str
    """Name of the rule."""
    tests: Bools
    """Tests that FAIL."""
    families: Bools | None
    """Topologies that FAIL as a whole; None if the rule does not look at them."""
    runs: float
    """Runs per cell and night."""
    passed: float | None = None
    """Share of tests that PASS; None for a rule that knows no INCONCLUSIVE."""


def judge_nights(draws: Draws, metrics: Sequence[str], *, layout: Layout, rules: Rules) -> Found:
    """Judge night after night, each with those before it and the runs that it asks for."""
    envelopes = estimation.envelopes_from_runs(
        draws.baseline, metrics, layout.families, rules=rules
    )
    drawn = estimation.signed_log(draws.nights, metrics)
    blank = np.full(drawn[:, 0].shape, np.nan)
    state = night.State.of(envelopes, blank, rules=rules)
    tests, families, made, passed = [], [], [], []
    for number in range(drawn.shape[1]):
        state = _ran(replace(state, logs=blank), drawn[:, number])
        judged = night.verdicts(state)
        state = replace(state, past=_kept(state.past, judged.night, rules.budget.past_nights))
        if number >= layout.lead_nights:
            tests.append(judged.failed)
            families.append(judged.family_fired)
            made.append(np.any(~np.isnan(state.logs), axis=-2).sum(axis=-1).mean())
            passed.append(judged.passed.mean())
    return Found(
        rule=JUDGE,
        tests=np.stack(tests, axis=1),
        families=np.stack(families, axis=1),
        runs=float(np.mean(made)),
        passed=float(np.mean(passed)),
    )


def _ran(state: night.State, drawn: Floats) -> night.State:
    """The state once every run that was asked for is made."""
    for run in range(drawn.shape[-1]):
        asked = night.next_cells(state)
        if not np.any(asked):
            break
        logs = state.logs.copy()
        logs[..., run] = np.where(asked[..., None], drawn[..., run], np.nan)
        state = replace(state, logs=logs)
    return state


def _kept(
    past: evidence.Nights | None, tonight: evidence.Nights, nights: int
) -> evidence.Nights | None:
    """The nights that the widest window of tomorrow looks at."""
    both = evidence.with_tonight(past, tonight)
    return evidence.Nights(
        z=both.z[..., -nights:], shift=both.shift[..., -nights:], runs=both.runs[..., -nights:]
    )


def naive(draws: Draws, metrics: Sequence[str], *, layout: Layout) -> Iterator[Found]:
    """Rules that others gate by: a threshold on one run, 5 % on a median of 3, a rolling P95.

    The last is TensorRT-LLM's: 5 % worse than the best twentieth of 90 days, throughput metrics
    only. The reference profile has one, so E2EL of the same noise is the second; and its 90 days
    are redrawn from the baseline's runs.
    """
    base = estimation.signed_log(draws.baseline, metrics)
    runs = estimation.signed_log(draws.nights[:, layout.lead_nights :], metrics)
    signs = estimation.directions(metrics)
    centre = base.mean(axis=-1)[:, None]
    for size in (0.05, 0.10):
        limit = centre + estimation.worse_by(np.full(len(metrics), size), signs)
        yield Found(rule=f"1 run ±{size:.0%}", tests=runs[..., 0] > limit, families=None, runs=1)
    limit = centre + estimation.worse_by(np.full(len(metrics), 0.05), signs)
    middle = np.median(runs[..., :3], axis=-1)
    yield Found(rule="median of 3", tests=middle > limit, families=None, runs=3)
    best = np.quantile(base, 0.05, axis=-1)[:, None]
    limit = best + estimation.worse_by(np.full(len(metrics), 0.05), signs)
    gated = np.isin(metrics, ("output_throughput", "mean_e2el_ms"))
    yield Found(rule="rolling P95", tests=(runs[..., 0] > limit) & gated, families=None, runs=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share that was counted."""

    hits: int
    """How often."""
    of: int
    """Out of how many."""

    @property
    def share(self) -> float:
        """Hits over all; NaN of none."""
        return self.hits / self.of if self.of else math.nan

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's score interval (1927)."""
        if not self.of:
            return 0.0, 1.0
        z = float(special.ndtri((1 + confidence) / 2))
        p, n = self.share, self.of
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def __add__(self, other: Rate) -> Rate:
        return Rate(hits=self.hits + other.hits, of=self.of + other.of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one rule did."""

    rule: str
    """Name of the rule."""
    regression: Regression | None
    """What was planted; None for clean nights."""
    rates: tuple[Rate, ...]
    """Clean: nights with a false FAIL. Planted: found within each of :data:`WITHIN` nights."""
    runs: float
    """Runs per cell and night."""
    passed: float | None
    """Share of tests that PASS; None for a rule that knows no INCONCLUSIVE."""


def clean_outcomes(
    profile: NoiseProfile,
    rng: np.random.Generator,
    *,
    nights: int,
    rules: Rules | None = None,
    layout: Layout | None = None,
) -> tuple[Outcome, ...]:
    """Judge *nights* nights on which nothing changed; the rates are nights with a false FAIL."""
    series = math.ceil(nights / CLEAN_NIGHTS)
    counted = min(nights, CLEAN_NIGHTS)
    return _outcomes(profile, rng, (series, counted), None, (rules, layout))


def planted_outcomes(
    profile: NoiseProfile,
    rng: np.random.Generator,
    *,
    regression: Regression,
    replications: int,
    rules: Rules | None = None,
    layout: Layout | None = None,
) -> tuple[Outcome, ...]:
    """Plant *regression* after each of many baselines; the rates are how often it was found."""
    return _outcomes(profile, rng, (replications, WITHIN[-1]), regression, (rules, layout))


def _outcomes(
    profile: NoiseProfile,
    rng: np.random.Generator,
    size: tuple[int, int],
    regression: Regression | None,
    given: tuple[Rules | None, Layout | None],
) -> tuple[Outcome, ...]:
    rules, layout = given[0] or Rules(), given[1] or Layout()
    replications, nights = size
    parts: dict[str, list[tuple[Found, tuple[Rate, ...]]]] = {}
    for start in range(0, replications, CHUNK):
        many = min(CHUNK, replications - start)
        draws = draw(
            profile,
            rng,
            layout=layout,
            replications=many,
            nights=nights,
            regression=regression,
        )
        judged = judge_nights(draws, profile.metrics, layout=layout, rules=rules)
        for found in (judged, *naive(draws, profile.metrics, layout=layout)):
            rates = count(found, profile, layout, regression)
            parts.setdefault(found.rule, []).append((found, rates))
    return tuple(_together(rule, regression, chunks) for rule, chunks in parts.items())


def _together(
    rule: str, regression: Regression | None, chunks: list[tuple[Found, tuple[Rate, ...]]]
) -> Outcome:
    weights = [found.tests.shape[0] for found, _ in chunks]
    passed = [found.passed for found, _ in chunks if found.passed is not None]
    return Outcome(
        rule=rule,
        regression=regression,
        rates=tuple(
            sum(rates[1:], start=rates[0]) for rates in zip(*(r for _, r in chunks), strict=True)
        ),
        runs=float(np.average([found.runs for found, _ in chunks], weights=weights)),
        passed=float(np.average(passed, weights=weights)) if passed else None,
    )


def count(
    found: Found, profile: NoiseProfile, layout: Layout, regression: Regression | None
) -> tuple[Rate, ...]:
    """Nights with a FAIL anywhere; or series in which a planted regression was found in time.

    A FAIL of the whole topology counts as found, since it names topology and metric.
    """
    if regression is None:
        nights = found.tests.any(axis=(-2, -1))
        if found.families is not None:
            nights = nights | found.families.any(axis=(-2, -1))
        return (Rate(hits=int(nights.sum()), of=nights.size),)
    hit = regression.hit(profile, layout).astype(bool)
    nights = (found.tests & hit).any(axis=(-2, -1))
    if found.families is not None:
        nights = nights | found.families[..., 0, hit.any(axis=0)].any(axis=-1)
    return tuple(
        Rate(hits=int(nights[:, :within].any(axis=1).sum()), of=len(nights)) for within in WITHIN
    )
