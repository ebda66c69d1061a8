"""``pdserve selftest``: what the nightly rule says of simulated nights, or of a file's nights."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

NAME = "selftest"
TEXT = "Judge simulated nights, or nights of a file, and tell what is found; exit 1 if broken"
NIGHTS = 1500
SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--nights", type=int, metavar="N", help=f"Clean nights a kind of noise (default: {NIGHTS})")
    add("--seed", type=int, metavar="S", help=f"Seed of every draw (default: {SEED})")
    add("--noise", metavar="NAME", help="One kind of noise, e.g. bimodal (default: all)")
    add("--workers", type=int, metavar="N", help="Processes (default: the cores, at most 2)")
    add(
        "--series",
        type=Path,
        metavar="FILE",
        help="Judge the nights of this CSV file instead, with the columns "
        "night,cell,start,run,metric,value,version",
    )


def run(options: argparse.Namespace) -> int:
    """Print what was found."""
    if options.series is not None:
        return _replay(options)
    from pytest_pdserve.study.selftest import selftest
    from pytest_pdserve.study.selftest_tables import render

    report = selftest(
        nights=NIGHTS if options.nights is None else options.nights,
        seed=SEED if options.seed is None else options.seed,
        noise=options.noise,
        workers=min(2, os.cpu_count() or 1) if options.workers is None else options.workers,
    )
    print(render(report))
    return ExitCode.FAIL if report.missed else ExitCode.OK


def _replay(options: argparse.Namespace) -> int:
    from pytest_pdserve.study.replay import render
    from pytest_pdserve.study.replay import replay
    from pytest_pdserve.study.series_file import load_series

    for name in ("nights", "seed", "noise", "workers"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} is for simulated nights, and --series is given")
    file = load_series(options.series)
    print(render(replay(file), replay(file, accept=True)))
    return ExitCode.OK
