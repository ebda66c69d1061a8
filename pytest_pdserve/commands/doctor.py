"""``pdserve doctor``: check what a system needs, and advise on what is missing."""

from __future__ import annotations

import argparse
import shutil
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_pdserve.session.project import Project
    from pytest_pdserve.values.prerequisites import Prerequisite
    from pytest_pdserve.values.system import System

NAME = "doctor"
TEXT = "Check what a system needs, and advise on what is missing; start and submit nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_system(parser)
    add_runs(parser)
    parser.add_argument(
        "--format", choices=("json", "text"), default="text", help="Default: %(default)s"
    )


def run(options: argparse.Namespace) -> int:
    """Print a row for each requirement; exit 4 if one of the system's is missing."""
    from pytest_pdserve.report.prerequisites import missing
    from pytest_pdserve.report.prerequisites import prerequisites_json
    from pytest_pdserve.report.prerequisites import prerequisites_table
    from pytest_pdserve.report.prerequisites import summary_line

    project = find_project(options)
    system = system_in(project)
    rows = examine(system, project)
    if options.format == "json":
        print(prerequisites_json(system.name, rows))
    else:
        width = shutil.get_terminal_size((80, 24)).columns
        print("\n".join(prerequisites_table(rows, width)))
        print(summary_line(system.name, rows))
    return ExitCode.BAD_INPUT if missing(rows) else ExitCode.OK


def examine(system: System, project: Project) -> Sequence[Prerequisite]:
    """Return a row for each requirement of *system*, and for requirements of other systems only."""
    from pytest_pdserve.backends.examining.others import unneeded_rows
    from pytest_pdserve.backends.examining.software import own_software
    from pytest_pdserve.backends.registry import backend_of

    own = own_software()
    needed = () if system.figures is not None else tuple(backend_of(system).examine(system))
    others = unneeded_rows(system, {row.what for row in needed})
    return [*own, *needed, *_model(system), *others, *_folders(system, project)]


def _model(system: System) -> Sequence[Prerequisite]:
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.serving.model import check_model
    from pytest_pdserve.values.errors import ConfigError
    from pytest_pdserve.values.prerequisites import required
    from pytest_pdserve.values.prerequisites import unchecked

    if system.figures is not None or system.simulated:
        return []
    here = backend_of(system).serves_from_here and not system.container.contained
    what, needed = "model", "[model] path"
    try:
        check_model(system, here=here)
    except ConfigError as error:
        advice = f"{str(error)[:1].upper()}{str(error)[1:]}."
        return [required(what, found="cannot be used", needed=needed, there=False, advice=advice)]
    if here:
        return [
            required(
                what,
                found="nothing seems to be missing",
                needed=needed,
                there=True,
                advice="",
            )
        ]
    return [unchecked(what, found="not on this machine", needed=needed)]


def _folders(system: System, project: Project) -> Sequence[Prerequisite]:
    from pytest_pdserve.backends.examining.writing import writable_row
    from pytest_pdserve.results.baselines import state_folder
    from pytest_pdserve.results.folders import own_folder

    by_host, measured = system.judgement.host_references, system.figures is None
    return [
        writable_row(
            "runs folder",
            project.runs,
            needed=measured,
            advice="Make it writable, or name another one by --pdserve-runs.",
        ),
        writable_row(
            "baselines folder",
            own_folder(system, project.rootdir),
            needed=measured and not by_host,
            advice="Make it writable, or work in a project of your own (pdserve init).",
        ),
        writable_row(
            "state folder",
            state_folder(),
            needed=measured and by_host,
            advice="Make it writable, or name another one in XDG_STATE_HOME.",
        ),
    ]
