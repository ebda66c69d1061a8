"""``pdserve selftest``: apply the rules to simulated nights or gates, or to nights of a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

NAME = "selftest"
TEXT = "Judge simulated nights or gates, or nights of a file; exit 1 if a rule is broken"
NIGHTS = 1500
GATES = 2000
SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add(
        "--nights",
        type=int,
        metavar="N",
        help=f"Clean nights per kind of noise (default: {NIGHTS})",
    )
    add("--gate", action="store_true", help="Judge simulated upgrade gates instead of nights")
    add("--gates", type=int, metavar="N", help=f"With --gate: gates per row (default: {GATES})")
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
    """Judge nights or gates, and print tables."""
    if options.series is not None:
        return _replay(options)
    if options.gate:
        return _gates(options)
    _refuse(options, ("gates",), "is for simulated gates, and --gate is not given")
    from pytest_pdserve.study.selftest import selftest
    from pytest_pdserve.study.selftest_tables import render

    report = selftest(
        nights=NIGHTS if options.nights is None else options.nights,
        seed=_seed(options),
        noise=options.noise,
        workers=_workers(options),
    )
    print(render(report))
    return ExitCode.FAIL if report.missed else ExitCode.OK


def _gates(options: argparse.Namespace) -> int:
    from pytest_pdserve.study.gate_selftest import gate_selftest
    from pytest_pdserve.study.gate_tables import render

    _refuse(options, ("nights",), "is for simulated nights, and --gate is given")
    report = gate_selftest(
        gates=GATES if options.gates is None else options.gates,
        seed=_seed(options),
        noise=options.noise,
        workers=_workers(options),
    )
    print(render(report))
    return ExitCode.FAIL if report.missed else ExitCode.OK


def _seed(options: argparse.Namespace) -> int:
    return SEED if options.seed is None else int(options.seed)


def _workers(options: argparse.Namespace) -> int:
    return min(2, os.cpu_count() or 1) if options.workers is None else int(options.workers)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raise ConfigError if one of the options is given."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value is not False:
            raise ConfigError(f"--{name} {why}")


def _replay(options: argparse.Namespace) -> int:
    from pytest_pdserve.study.replay import render
    from pytest_pdserve.study.replay import replay
    from pytest_pdserve.study.series_file import load_series

    simulated = ("nights", "gate", "gates", "seed", "noise", "workers")
    _refuse(options, simulated, "is for simulations, and --series is given")
    file = load_series(options.series)
    print(render(replay(file), replay(file, accept=True)))
    return ExitCode.OK
