"""``pdserve judge``: judge a stored session by the current baseline."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pdserve.commands.arguments import add_history
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.report.formats import format_named
from pytest_pdserve.report.formats import formats
from pytest_pdserve.values.exit_codes import ExitCode

NAME = "judge"
TEXT = "Judge a stored session by the baseline and the nights before it"
_CODES = ", ".join(f"{code} {code.text}" for code in ExitCode)
DESCRIPTION = f"{TEXT}. Exit codes: {_CODES} (docs/judging.md)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_system(parser)
    add_runs(parser)
    add_history(parser)
    parser.add_argument(
        "--format", choices=formats(), default="text", help="Output format (%(default)s)"
    )
    parser.add_argument(
        "--partial", action="store_true", help="Accept that cells of the baseline have no run"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="Exit 6 also if something is SUSPICIOUS, INCONCLUSIVE or unproven, or an expected "
        "change is expired or unused",
    )
    parser.add_argument(
        "--claims",
        action="append",
        type=Path,
        metavar="FILE",
        help="Claims to judge too; may be given several times (default: every claims.toml below "
        "suites/ of the project)",
    )
    parser.add_argument(
        "run_ids",
        nargs="*",
        metavar="RUN",
        help="Folder in it (default: newest); several sessions of one night are judged as one",
    )


def run(options: argparse.Namespace) -> int:
    """Judge a session, and print the verdicts.

    :returns: the exit code.
    :raises ConfigError: as :func:`~pytest_pdserve.session.rejudge.rejudge`.
    """
    from pytest_pdserve.results.baselines import state_folder
    from pytest_pdserve.session.rejudge import rejudge

    project = find_project(options)
    judged = rejudge(
        system_in(project),
        project.runs,
        options.run_ids,
        state=state_folder(),
        rootdir=project.rootdir,
        history=project.history,
        claims=options.claims or sorted(project.rootdir.glob("suites/**/claims.toml")),
        partial=options.partial,
        strict=options.strict,
    )
    print(format_named(options.format).render(judged))
    return judged.exit_code
