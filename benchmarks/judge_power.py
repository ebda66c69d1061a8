"""The judge on every noise profile: the table of profiles in docs/judging.md. Ten minutes.

Simulated throughout: 10,000 clean nights a profile from seed 20261123, and 400 series for each
planted regression from seed 20261124. ``python benchmarks/judge_power.py [PROFILE …]``
"""

from __future__ import annotations

import sys

import numpy as np

from pytest_pdserve.judge.noise import Regression
from pytest_pdserve.judge.power import Outcome
from pytest_pdserve.judge.power import clean_outcomes
from pytest_pdserve.judge.power import planted_outcomes
from pytest_pdserve.values.profile import PROFILES
from pytest_pdserve.values.profile import profile_named
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
    main(sys.argv[1:])
