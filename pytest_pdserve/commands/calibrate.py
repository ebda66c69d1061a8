"""``pdserve calibrate``: how noisy a system is when nothing changes."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pdserve.commands.arguments import add_stored
from pytest_pdserve.commands.arguments import next_lines
from pytest_pdserve.commands.arguments import system_named

NAME = "calibrate"
TEXT = "Say how noisy a system is when nothing changes, from stored nights of an A/A study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_stored(parser)


def run(options: argparse.Namespace) -> int:
    """Write the calibration, and print its table."""
    from pytest_pdserve.report.calibration import calibration_lines
    from pytest_pdserve.results.calibration import write_calibration
    from pytest_pdserve.results.folders import check_own
    from pytest_pdserve.results.selection import select
    from pytest_pdserve.study.calibration import calibrate

    system = system_named(options.system)
    check_own(Path(system.source))
    selection = select(options.runs, system, options.run_ids)
    calibration = calibrate(selection, system)
    path = write_calibration(calibration)
    lines = calibration_lines(calibration, selection.left_out)
    print("\n".join([*lines, *next_lines(f"git add {path}")]))
    return 0
