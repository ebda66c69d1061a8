"""``pdserve baseline propose|diff|accept``: baselines made of stored nights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.commands.arguments import add_stored
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import next_lines
from pytest_pdserve.commands.arguments import system_named
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sources import changes
from pytest_pdserve.values.system import System

if TYPE_CHECKING:
    from pytest_pdserve.values.baseline import Baseline

TARGET_NIGHTS = 20
"""Nights of a baseline: one of 20 finds 5 % of a cell the same night, one of 5 hardly ever."""


NAME = "baseline"
TEXT = "Make a baseline of stored nights: propose, look at the difference, accept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
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


def _add_propose(steps: Any) -> None:
    text = "Write a candidate baseline made of stored nights, and say what it is made of"
    propose = steps.add_parser("propose", help=text, description=text)
    add_stored(propose)
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


def run(options: argparse.Namespace) -> int:
    """Do one step, and print what there is to say."""
    from pytest_pdserve.results.folders import check_own

    system = system_named(options.system)
    if options.step != "diff":
        check_own(Path(system.source))
    steps = {"propose": _propose, "diff": _diff, "accept": _accept}
    print(steps[options.step](options, system))
    return 0


def _propose(options: argparse.Namespace, system: System) -> str:
    from pytest_pdserve.results.baselines import baseline_path
    from pytest_pdserve.results.baselines import load_baseline
    from pytest_pdserve.results.proposals import propose
    from pytest_pdserve.results.proposals import write_proposal
    from pytest_pdserve.results.selection import select
    from pytest_pdserve.session.session_judge import SUITE

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
            *next_lines(f"pdserve baseline diff --system {system.name}", path),
        ]
    )


def _diff(options: argparse.Namespace, system: System) -> str:
    from pytest_pdserve.judge.differences import differences
    from pytest_pdserve.report.differences import difference_lines
    from pytest_pdserve.results.baselines import baseline_path
    from pytest_pdserve.results.baselines import load_baseline
    from pytest_pdserve.results.proposals import load_proposal
    from pytest_pdserve.session.session_judge import SUITE

    new = load_proposal(system, SUITE)
    path = baseline_path(system, SUITE)
    old = load_baseline(path, system=system, suite=SUITE)
    return "\n".join(
        [
            f"old  {old.origin if old else f'{path} does not exist'}",
            f"new  {new.origin}",
            *(f"  {change}" for change in _changes(old, new)),
            *difference_lines(differences(old, new), everything=options.all),
            *next_lines(f"pdserve baseline accept --system {system.name} --approver NAME"),
        ]
    )


def _changes(old: Baseline | None, new: Baseline) -> list[str]:
    """What hardware and settings of the system file differ."""
    if old is None or old.provenance is None or new.provenance is None:
        return []
    return changes(old.provenance.host, new.provenance.host)


def _accept(options: argparse.Namespace, system: System) -> str:
    from pytest_pdserve.results.proposals import accept
    from pytest_pdserve.session.session_judge import SUITE

    path = accept(system, SUITE, approver=options.approver, note=options.note)
    return "\n".join([f"accepted  {path}", *next_lines(f"git add {path}")])
