"""Keeping baselines: ``pdserve baseline propose|diff|accept``, ``pdserve calibrate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_pdserve.arguments import add_runs
from pytest_pdserve.arguments import add_system
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

TARGET_NIGHTS = 20
"""Nights of a baseline: one of 20 finds 5 % of a cell the same night, one of 5 hardly ever."""


def add_parsers(commands: Any) -> None:
    """Add both commands to the parser of ``pdserve``."""
    text = "Make a baseline of stored nights: propose, look at the difference, accept"
    baseline = commands.add_parser("baseline", help=text, description=text)
    steps = baseline.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_propose(steps)
    text = "Show what the proposal says otherwise than the baseline"
    diff = steps.add_parser("diff", help=text, description=text)
    add_system(diff)
    diff.add_argument("--all", action="store_true", help="Small changes too")
    text = "Make the proposal the baseline, in the name of who answers for it"
    accept = steps.add_parser("accept", help=text, description=text)
    add_system(accept)
    accept.add_argument("--approver", required=True, metavar="NAME", help="Who answers for it")
    accept.add_argument("--note", metavar="TEXT", help="Why, kept in the file")
    text = "Say how noisy a system is when nothing changes, from stored nights of an A/A study"
    calibrate = commands.add_parser("calibrate", help=text, description=text)
    _add_stored(calibrate)


def _add_propose(steps: Any) -> None:
    text = "Write a candidate baseline made of stored nights, and say what it is made of"
    propose = steps.add_parser("propose", help=text, description=text)
    _add_stored(propose)
    propose.add_argument(
        "--last",
        type=int,
        default=TARGET_NIGHTS,
        metavar="N",
        help="Newest nights of each cell (%(default)s)",
    )
    propose.add_argument(
        "--every-session",
        action="store_true",
        help="Take all sessions of a night, not only the first that has a cell",
    )


def _add_stored(parser: argparse.ArgumentParser) -> None:
    add_system(parser)
    add_runs(parser)
    parser.add_argument(
        "run_ids", nargs="*", metavar="RUN", help="Folders in it (default: all that are alike)"
    )


def run(options: argparse.Namespace, system: System) -> str:
    """Do what was asked.

    :returns: what there is to say.
    :raises ConfigError: if it cannot be done with these records or files.
    :raises StoreError: if a file cannot be written.
    """
    from pytest_pdserve.results.systems import check_own  # noqa: PLC0415 - loads in commands

    step = "calibrate" if options.command == "calibrate" else options.step
    if step != "diff":
        check_own(Path(system.source))
    steps = {"propose": _propose, "diff": _diff, "accept": _accept, "calibrate": _calibrate}
    return steps[step](options, system)


def _propose(options: argparse.Namespace, system: System) -> str:
    from pytest_pdserve.results.baselines import baseline_path  # noqa: PLC0415
    from pytest_pdserve.results.baselines import load_baseline  # noqa: PLC0415
    from pytest_pdserve.results.proposals import propose  # noqa: PLC0415
    from pytest_pdserve.results.proposals import write_proposal  # noqa: PLC0415
    from pytest_pdserve.results.selection import select  # noqa: PLC0415
    from pytest_pdserve.session import SUITE  # noqa: PLC0415

    if options.last < 1:
        raise ConfigError(f"--last {options.last}: at least one night is needed")
    selection = select(options.runs, system, options.run_ids)
    if not options.every_session:
        selection = selection.one_a_night()
    current = load_baseline(baseline_path(system, SUITE), system=system, suite=SUITE)
    proposal = propose(selection, system, suite=SUITE, last=options.last, current=current)
    path = write_proposal(proposal)
    return "\n".join(
        [
            f"proposal for {proposal.baseline.origin}",
            *(f"  {reason}" for reason in proposal.reasons),
            *(f"  WARNING: {warning}" for warning in proposal.warnings),
            *_next(f"pdserve baseline diff --system {system.name}", path),
        ]
    )


def _diff(options: argparse.Namespace, system: System) -> str:
    from pytest_pdserve.judge.differences import differences  # noqa: PLC0415
    from pytest_pdserve.report.differences import difference_lines  # noqa: PLC0415
    from pytest_pdserve.results.baselines import baseline_path  # noqa: PLC0415
    from pytest_pdserve.results.baselines import load_baseline  # noqa: PLC0415
    from pytest_pdserve.results.proposals import load_proposal  # noqa: PLC0415
    from pytest_pdserve.session import SUITE  # noqa: PLC0415

    new = load_proposal(system, SUITE)
    path = baseline_path(system, SUITE)
    old = load_baseline(path, system=system, suite=SUITE)
    return "\n".join(
        [
            f"old  {old.origin if old else f'{path} does not exist'}",
            f"new  {new.origin}",
            *difference_lines(differences(old, new), everything=options.all),
            *_next(f"pdserve baseline accept --system {system.name} --approver NAME"),
        ]
    )


def _accept(options: argparse.Namespace, system: System) -> str:
    from pytest_pdserve.results.proposals import accept  # noqa: PLC0415
    from pytest_pdserve.session import SUITE  # noqa: PLC0415

    path = accept(system, SUITE, approver=options.approver, note=options.note)
    return "\n".join([f"accepted  {path}", *_next(f"git add {path}")])


def _calibrate(options: argparse.Namespace, system: System) -> str:
    from pytest_pdserve.report.calibration import calibration_lines  # noqa: PLC0415
    from pytest_pdserve.results.calibration import calibrate  # noqa: PLC0415
    from pytest_pdserve.results.calibration import write_calibration  # noqa: PLC0415
    from pytest_pdserve.results.selection import select  # noqa: PLC0415

    selection = select(options.runs, system, options.run_ids)
    calibration = calibrate(selection, system)
    path = write_calibration(calibration)
    lines = calibration_lines(calibration, selection.left_out)
    return "\n".join([*lines, *_next(f"git add {path}")])


def _next(command: str, path: Path | None = None) -> Sequence[str]:
    return [*([f"written  {path}"] if path else []), f"next     {command}"]
