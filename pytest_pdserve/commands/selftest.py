"""``pdserve selftest``: regressions planted into simulated nights, and what the judge finds."""

from __future__ import annotations

import argparse

from pytest_pdserve.values.exit_codes import ExitCode

NAME = "selftest"
TEXT = "Plant regressions into simulated nights, and tell what the judge finds; exit 1 if broken"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--profile", default="reference", metavar="NAME", help="Noise profile (%(default)s)")
    add("--nights", default=1000, type=int, metavar="N", help="Clean nights (%(default)s)")
    add("--seed", default=0, type=int, metavar="S", help="Of every draw (%(default)s)")
    add("--uncalibrated", action="store_true", help="Do not tell the judge the profile's ICC")


def run(options: argparse.Namespace) -> int:
    """Print what was found."""
    from pytest_pdserve.study.selftest import render
    from pytest_pdserve.study.selftest import selftest

    report = selftest(
        options.profile,
        nights=options.nights,
        seed=options.seed,
        calibrated=not options.uncalibrated,
    )
    print(render(report))
    return ExitCode.FAIL if report.broken else ExitCode.OK
