"""The gate's test of itself: regressions are planted into simulated nights, and finds counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from pytest_pdserve.report.table import text_table
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Regression
from pytest_pdserve.study.power import JUDGE
from pytest_pdserve.study.power import WITHIN
from pytest_pdserve.study.power import Outcome
from pytest_pdserve.study.power import clean_outcomes
from pytest_pdserve.study.power import planted_outcomes
from pytest_pdserve.study.profile import NoiseProfile
from pytest_pdserve.study.profile import profile_named
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.rules import Rules

SIZES = (0.02, 0.03, 0.05, 0.10)
PLANTED = (
    *(Regression(size=size, scope="metric") for size in SIZES),
    *(Regression(size=size, scope="cell") for size in SIZES),
    *(Regression(size=size, scope="topology") for size in SIZES),
    *(Regression(size=size, scope="cell", shape="drift") for size in SIZES[1:]),
    *(Regression(size=size, scope="topology", shape="drift") for size in SIZES[:2]),
    *(Regression(size=0.05, scope="metric", metric=f"{p}_ttft_ms") for p in ("p50", "p99")),
)
"""What is planted, one after the other."""
SEEN = (
    Regression(size=0.10, scope="cell"),
    Regression(size=0.03, scope="topology"),
)
"""What a judge finds within a week on every profile, or it is blind."""
LEAST_SEEN = 0.95
"""Share of series in which it does."""
MOST_NIGHTS = 1_000_000
"""Clean nights at most; so many take hours."""
NIGHTS_EACH = 20
"""Clean nights per series that a regression is planted into: so many times fewer series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All figures of one self-test."""

    profile: NoiseProfile
    """Noise that was drawn."""
    rules: Rules
    """Rules that judged."""
    layout: Layout
    """Cells and runs."""
    nights: int
    """Clean nights asked for."""
    seed: int
    """Of every draw."""
    clean: tuple[Outcome, ...]
    """Each rule on clean nights."""
    planted: tuple[tuple[Outcome, ...], ...]
    """Each rule on each planted regression."""

    @property
    def broken(self) -> tuple[str, ...]:
        """What is wrong with the judge, as far as so many nights can tell; empty if nothing."""
        alarms = _of_judge(self.clean).rates[0]
        budget = self.rules.budget.total
        found = []
        if alarms.interval()[0] > budget:
            found.append(f"false-alarm nights {alarms.share:.2%}, above the budget of {budget:.1%}")
        for outcomes in self.planted:
            last = _of_judge(outcomes).rates[-1]
            if outcomes[0].regression in SEEN and last.interval()[1] < LEAST_SEEN:
                found.append(
                    f"{_planted_name(outcomes[0])} found in {last.share:.0%} of series within "
                    f"{WITHIN[-1]} nights, not in {LEAST_SEEN:.0%}"
                )
        return tuple(found)


def _of_judge(outcomes: Sequence[Outcome]) -> Outcome:
    return next(outcome for outcome in outcomes if outcome.rule == JUDGE)


def _planted_name(outcome: Outcome) -> str:
    regression = outcome.regression
    assert regression is not None
    one = regression.metric if regression.scope == "metric" else f"one {regression.scope}"
    return f"{regression.size:.0%} {regression.shape}, {one}"


def selftest(name: str, *, nights: int, seed: int, calibrated: bool = True) -> Report:
    """Judge clean nights and planted regressions on the profile called *name*.

    :param calibrated: whether the judge is told the profile's ICC.
    :raises ConfigError: if the profile is unknown, or a number makes no sense.
    """
    profile = profile_named(name)
    if not 1 <= nights <= MOST_NIGHTS:
        raise ConfigError(f"--nights {nights!s:.30}: at least one, {MOST_NIGHTS:,} at most")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: 0 or more")
    rules = replace(Rules(), icc=profile.icc if calibrated else None)
    streams = np.random.SeedSequence(seed).spawn(1 + len(PLANTED))
    first, *others = (np.random.default_rng(stream) for stream in streams)
    return Report(
        profile=profile,
        rules=rules,
        layout=Layout(),
        nights=nights,
        seed=seed,
        clean=clean_outcomes(profile, first, nights=nights, rules=rules),
        planted=tuple(
            planted_outcomes(
                profile,
                rng,
                regression=regression,
                replications=max(1, nights // NIGHTS_EACH),
                rules=rules,
            )
            for regression, rng in zip(PLANTED, others, strict=True)
        ),
    )


def render(report: Report) -> str:
    """The tables, each under a line that says what was simulated."""
    layout, profile = report.layout, report.profile
    clean, planted = report.clean[0].rates[0].of, report.planted[0][0].rates[0].of
    drawn = (
        f"SIMULATED, profile {profile.name} ({profile.source}), seed {report.seed}: "
        f"{layout.topologies} topologies x {layout.cells_each} cells x {len(profile.cvs)} metrics, "
        f"baselines of {layout.baseline_runs} runs"
    )
    assumed = f"ICC {profile.icc:g}" + ("" if report.rules.icc is not None else ", uncalibrated")
    return "\n\n".join(
        [
            f"{drawn}; {assumed}",
            "Error budget of a night\n" + _budget(report),
            f"Nothing changed, {clean} simulated nights\n" + _clean(report),
            f"Found within {'/'.join(map(str, WITHIN))} nights, % of {planted} simulated series "
            f"each\n" + _planted(report),
            f"{_verdict(report)} (simulated, profile {profile.name}, seed {report.seed}, "
            f"{clean} nights)",
        ]
    )


def _verdict(report: Report) -> str:
    if report.broken:
        return f"BROKEN: {'; '.join(report.broken)}"
    seen = " and ".join(f"{r.size:.0%} of one {r.scope}" for r in SEEN)
    budget = report.rules.budget.total
    return f"sound: false-alarm nights within the budget of {budget:.1%}, {seen} found"


def _budget(report: Report) -> str:
    metrics, layout = len(report.profile.cvs), report.layout
    shares = report.rules.budget.shares(
        tests=layout.cells * metrics, families=layout.topologies * metrics
    )
    rows = [
        (s.part, str(s.nights), f"{s.budget:.3%}", str(s.tests), f"{s.level:.1e}") for s in shares
    ]
    total = ("together", "", f"{report.rules.budget.total:.3%}", "", "")
    return _table(("part", "nights", "nights it may fail", "tests", "p of each"), [*rows, total])


def _clean(report: Report) -> str:
    rows = []
    for outcome in report.clean:
        low, high = outcome.rates[0].interval()
        rows.append(
            (
                outcome.rule,
                f"{outcome.runs:.2f}",
                f"{outcome.rates[0].share:.2%}",
                f"{low:.2%} to {high:.2%}",
                "-" if outcome.passed is None else f"{outcome.passed:.1%}",
            )
        )
    columns = ("rule", "runs per cell-night", "false-alarm nights", "95 % (Wilson)", "tests PASS")
    return _table(columns, rows)


def _planted(report: Report) -> str:
    rows = []
    for outcomes in report.planted:
        found = ("/".join(f"{100 * r.share:.0f}" for r in o.rates) for o in outcomes)
        rows.append((_planted_name(outcomes[0]), *found))
    rules = (outcome.rule for outcome in report.planted[0])
    return _table(("planted", *rules), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(text_table(columns, rows, f"l{'r' * (len(columns) - 1)}"))
