"""``pdserve calibrate``: the noise of an unchanged system, and floors that follow from it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.errors import ConfigError

if TYPE_CHECKING:
    from pytest_pdserve.values.calibration import Series
    from pytest_pdserve.values.system import System

MAX = 10_000
"""Maximum number of requests in flight."""
NAME = "calibrate"
TEXT = "Report the noise of an unchanged system, and propose floors and longer loads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_system(parser)
    add_runs(parser)
    parser.add_argument(
        "--series",
        type=Path,
        metavar="FILE",
        help="CSV file of runs, in place of stored sessions (docs/calibration.md)",
    )
    parser.add_argument(
        "--any-version",
        action="store_true",
        help="Use sessions of all versions of vLLM, NIXL and the router, not only the newest",
    )
    parser.add_argument(
        "--client",
        action="store_true",
        help="Measure the offsets of the system's benchmark client on this machine, and store them",
    )
    parser.add_argument(
        "--streams",
        metavar="N[,N…]",
        help="With --client: requests in flight at once (default: 1, 64, 256, 1024 and those of "
        "the system's own cells)",
    )
    parser.add_argument(
        "run_ids", nargs="*", metavar="RUN", help="Folders of --runs (default: all comparable ones)"
    )


def run(options: argparse.Namespace) -> int:
    """Print tables, and lines for the system file.

    :raises ConfigError: if no cell was measured on enough starts.
    """
    from pytest_pdserve.report.calibration import calibration_lines
    from pytest_pdserve.report.calibration import nothing_known
    from pytest_pdserve.study.calibration import calibrate
    from pytest_pdserve.values.system import Judgement

    if options.client:
        return _client(options)
    system, series = _system_and_series(options)
    found = calibrate(series, system.judgement if system else Judgement())
    if not found.noise:
        raise ConfigError(nothing_known(found, system))
    print("\n".join(calibration_lines(found, series, system)))
    return 0


def _system_and_series(options: argparse.Namespace) -> tuple[System | None, Series]:
    """Return the system, and its runs; a file of runs needs no system."""
    from pytest_pdserve.results.calibration import load_series
    from pytest_pdserve.results.calibration import stored_series
    from pytest_pdserve.results.selection import select

    if options.series is not None and options.run_ids:
        raise ConfigError(
            f"--series {options.series} and RUN {options.run_ids[0]}: expected only one of them"
        )
    if options.series is not None and options.system is None:
        return None, load_series(options.series)
    project = find_project(options)
    system = system_in(project)
    if options.series is not None:
        return system, load_series(options.series)
    selection = select(
        project.runs, system, options.run_ids, any_version=options.any_version, any_load=True
    )
    sessions = len(selection.sessions)
    source = f"{sessions} session{'s' * (sessions > 1)} of {project.runs} ({selection.period})"
    return system, stored_series(selection, source)


def _client(options: argparse.Namespace) -> int:
    """Measure the system's client against a server of known timing, and store its offsets."""
    from pytest_pdserve.report.client_offsets import offset_lines
    from pytest_pdserve.results.client_offsets import write_offsets
    from pytest_pdserve.study.client_calibration import default_streams
    from pytest_pdserve.study.client_calibration import measure_client

    project = find_project(options)
    system = system_in(project)
    streams = default_streams(system) if options.streams is None else _streams(options.streams)
    found = measure_client(system, streams, progress=lambda text: print(f"pdserve: {text}"))
    path = write_offsets(found, system, project.rootdir)
    print("\n".join([*offset_lines(found), f"kept in   {path}"]))
    return 0


def _streams(text: str) -> tuple[int, ...]:
    """Parse ``--streams``.

    :raises ConfigError: if it is not a list of numbers from 1 to 10,000.
    """
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and 1 <= int(word) <= MAX for word in words):
        raise ConfigError(
            f"--streams {text!r:.80}: expected comma-separated numbers from 1 to {MAX:,}"
        )
    return tuple(sorted({int(word) for word in words}))
