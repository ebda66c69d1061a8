"""The judge on every noise profile, and by lengths of the baseline: tables of docs/judging.md.

Simulated throughout: 10,000 clean nights a profile from seed 20261123, and 400 series for each
planted regression from seed 20261124; half an hour on one core.
``python benchmarks/judge_power.py [PROFILE …]``. Lengths, two minutes: 3,000 nights from seed 5,
200 series from seed 6, ``python benchmarks/judge_power.py lengths``.
"""

from __future__ import annotations

import sys

import numpy as np

from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Regression
from pytest_pdserve.study.power import Outcome
from pytest_pdserve.study.power import clean_outcomes
from pytest_pdserve.study.power import planted_outcomes
from pytest_pdserve.study.profile import PROFILES
from pytest_pdserve.study.profile import REFERENCE
from pytest_pdserve.study.profile import profile_named
from pytest_pdserve.values.rules import Rules

NIGHTS, SERIES = 10_000, 400
PLANTED = (
    Regression(size=0.05, scope="cell"),
    Regression(size=0.03, scope="cell"),
    Regression(size=0.02, scope="topology"),
    Regression(size=0.05, scope="metric", metric="p50_ttft_ms"),
)


def main(names: list[str]) -> None:
    """Print two rows of Markdown a profile: the judge knows its ICC, and it does not."""
    for name in names or PROFILES:
        profile = profile_named(name)
        for rules in (Rules(icc=profile.icc), Rules()):
            clean = clean_outcomes(
                profile, np.random.default_rng(20261123), nights=NIGHTS, rules=rules
            )
            found = [
                planted_outcomes(
                    profile,
                    np.random.default_rng(20261124),
                    regression=regression,
                    replications=SERIES,
                    rules=rules,
                )
                for regression in PLANTED
            ]
            label = name if rules.icc is not None else f"{name}, uncalibrated"
            sys.stdout.write(row(label, clean[0], [outcomes[0] for outcomes in found]) + "\n")
            sys.stdout.flush()


def lengths() -> None:
    """Print a row of Markdown a length: false FAILs, runs, 5 % of one cell within 1/3/7 nights."""
    rules = Rules(icc=REFERENCE.icc)
    for runs in (3, 5, 8, 10, 15, 20, 40):
        layout = Layout(baseline_runs=runs)
        clean, *_ = clean_outcomes(
            REFERENCE, np.random.default_rng(5), nights=3000, rules=rules, layout=layout
        )
        found, *_ = planted_outcomes(
            REFERENCE,
            np.random.default_rng(6),
            regression=PLANTED[0],
            replications=200,
            rules=rules,
            layout=layout,
        )
        finds = "/".join(f"{100 * rate.share:.0f}" for rate in found.rates)
        sys.stdout.write(f"| {runs} | {clean.rates[0].share:.2%} | {clean.runs:.2f} | {finds} |\n")


def row(label: str, clean: Outcome, planted: list[Outcome]) -> str:
    """One row of Markdown: profile, runs, false-alarm nights with interval, finds."""
    low, high = clean.rates[0].interval()
    finds = ("/".join(f"{100 * rate.share:.0f}" for rate in outcome.rates) for outcome in planted)
    cells = (
        label,
        f"{clean.runs:.2f}",
        f"{clean.rates[0].share:.2%} ({low:.2%} to {high:.2%})",
        *finds,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if sys.argv[1:] == ["lengths"]:
        lengths()
    else:
        main(sys.argv[1:])
