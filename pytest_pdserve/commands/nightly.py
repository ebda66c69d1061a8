"""``pdserve nightly``: run a whole night, from cron, systemd or a workflow."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands import clean
from pytest_pdserve.commands.arguments import add_history
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import history_folder
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.nightly import STEPS

if TYPE_CHECKING:
    from pytest_pdserve.nightly.folder import NightlyFolder
    from pytest_pdserve.nightly.night import Plan
    from pytest_pdserve.nightly.running import SessionCommand
    from pytest_pdserve.session.project import Project
    from pytest_pdserve.values.system import System

NAME = "nightly"
TEXT = "Run a whole night: run the suites, report what changed, add to the history, notify"
_CODES = ", ".join(f"{code} {code.text}" for code in ExitCode)
DESCRIPTION = f"{TEXT} (docs/nightly.md). Exit codes: {_CODES}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_system(parser)
    add_runs(parser)
    add_history(parser)
    parser.add_argument(
        "--topology",
        metavar="ID[,ID…]",
        help="Topologies to measure (default: ini key pdserve_topology, else as pytest's)",
    )
    parser.add_argument(
        "--until",
        metavar="HH:MM",
        help="End the session by this local time: cells that were suspicious last night come "
        "first, then those measured longest ago, and what there is no time for is left out and "
        "listed (default: ini key pdserve_until, else no end)",
    )
    parser.add_argument(
        "--partial", action="store_true", help="Accept that cells are left out for --until"
    )
    parser.add_argument(
        "--only",
        metavar="STEP[,STEP…]",
        type=_steps,
        default=STEPS,
        help=f"Do only these steps: {', '.join(STEPS)} (default: all)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="Wait while another night of the system runs (default: leave)",
    )
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help="Files, folders or tests to run (default: ini key pdserve_nightly_suites, else suites "
        "in the project's root)",
    )


def _steps(text: str) -> tuple[str, ...]:
    requested = text.split(",")
    if unknown := [step for step in requested if step not in STEPS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r:.40} is not a step; these are {', '.join(STEPS)}"
        )
    return tuple(step for step in STEPS if step in requested)


def run(options: argparse.Namespace) -> int:
    """Run the steps of the night.

    :returns: the exit code.
    :raises ConfigError: if options, system, state or report cannot be used.
    :raises PdserveError: if another night runs, or a file cannot be written.
    """
    from pytest_pdserve.nightly.locking import locked
    from pytest_pdserve.nightly.night import Night

    project = find_project(options)
    if "run" in options.only and _is_folder_name(project.system):
        # Also a night that ends with an error now must not leave the report of an earlier night.
        _folder(project).report("md").unlink(missing_ok=True)
    plan = _plan(options, project, system_in(project))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with locked(plan.folder.lock, wait=options.wait) as lock:
        night = Night(
            plan=plan, night=_night(plan.system), lock=lock, say=_say, warn=_warn, clean=_clean
        )
        return night.do(options.only)


def _say(line: str) -> None:
    print(f"pdserve: {line}", flush=True)


def _warn(line: str) -> None:
    print(f"pdserve: {line}", file=sys.stderr, flush=True)


def _clean() -> object:
    return clean.run(argparse.Namespace(dry_run=False))


def _is_folder_name(system: str) -> bool:
    """Tell whether *system* names a folder below that of nights; other names are rejected later."""
    return Path(system).name == system and system not in ("", "..")


def _folder(project: Project) -> NightlyFolder:
    from pytest_pdserve.nightly.folder import DEFAULT_NIGHTLY
    from pytest_pdserve.nightly.folder import NightlyFolder

    return NightlyFolder(path=project.rootdir / DEFAULT_NIGHTLY / project.system)


def _plan(options: argparse.Namespace, project: Project, system: System) -> Plan:
    from pytest_pdserve.nightly.night import Plan

    folder = _folder(project)
    return Plan(
        command=_command(options, project, folder.report("json")),
        system=system,
        folder=folder,
        history=history_folder(options, project),
        runs=project.runs,
        notify=project.nightly_notify,
        partial=options.partial,
    )


def _command(options: argparse.Namespace, project: Project, report: Path) -> SessionCommand:
    from pytest_pdserve.nightly.running import SessionCommand
    from pytest_pdserve.nightly.running import absolute
    from pytest_pdserve.values.until import parse_until

    until = options.until if options.until is not None else project.until
    suites = absolute(options.suites, Path.cwd())
    if not suites:
        suites = absolute(project.nightly_suites or ("suites",), project.rootdir)
    if "run" in options.only and not options.suites and not project.nightly_suites:
        if not Path(suites[0]).exists():
            raise ConfigError(
                f"{suites[0]} is not there: name suites, or set the ini key pdserve_nightly_suites"
            )
    return SessionCommand(
        suites=suites,
        system=project.system,
        report=report,
        rootdir=project.rootdir,
        topology=options.topology,
        runs=None if options.runs is None else project.runs.absolute(),
        config_file=options.config_file,
        until=(
            parse_until(until, datetime.now(UTC))
            if until is not None and "run" in options.only
            else None
        ),
    )


def _night(system: System) -> date:
    """Return the date of tonight: the local one, or that of the night that a simulation names."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.history.store import SIMULATED_EPOCH

    number = backend_of(system).night(system)
    if number is None:
        return datetime.now().astimezone().date()
    return (SIMULATED_EPOCH + timedelta(days=number)).date()
