"""``pdserve show``: stored sessions as tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.values.errors import ConfigError

if TYPE_CHECKING:
    from pytest_pdserve.results.history import StoredSession

NAME = "show"
TEXT = "Show what stored sessions measured; nothing is judged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--system", metavar="NAME", help="Only sessions of this system (default: of any)"
    )
    add_project(parser)
    add_runs(parser)
    parser.add_argument(
        "--format", choices=("json", "text"), default="text", help="Output format (%(default)s)"
    )
    parser.add_argument("run_ids", nargs="*", metavar="RUN", help="Folders in it (default: newest)")


def run(options: argparse.Namespace) -> int:
    """Print a table of each session.

    :raises ConfigError: if there is none, or nothing of it can be read.
    """
    from pytest_pdserve.report.stored import stored_content
    from pytest_pdserve.report.stored import stored_lines

    runs, system = find_project(options).runs, options.system
    names = options.run_ids or [_newest(runs, system)]
    sessions = [_session(runs, name, system) for name in dict.fromkeys(names)]
    if options.format == "json":
        print(json.dumps([stored_content(session) for session in sessions]))
    else:
        print("\n\n".join("\n".join(stored_lines(session)) for session in sessions))
    return 0


def _newest(runs: Path, system: str | None) -> str:
    """Return the folder of the newest session with a record; print which are skipped."""
    from pytest_pdserve.results.history import session_folders
    from pytest_pdserve.results.history import stored_session

    for folder, found in session_folders(runs):
        if system not in (None, found.system):
            continue
        unreadable: list[str] = []
        if stored_session(folder, system=found.system, unreadable=unreadable) is not None:
            return folder.name
        why = unreadable[0] if unreadable else "it has no record"
        print(f"pdserve: skipped {folder.name}: {why}", file=sys.stderr)
    of = f" of {system!r}" if system else ""
    raise ConfigError(f"{runs} holds no session{of} with a record; name another folder with --runs")


def _session(runs: Path, name: str, system: str | None) -> StoredSession:
    from pytest_pdserve.results.history import session_of
    from pytest_pdserve.results.history import stored_session

    folder = runs / name
    if Path(name).name != name or name in ("", "..") or not os.path.isdir(folder):
        raise ConfigError(f"RUN {name!r:.80}: expected the name of a folder in {runs}")
    found = session_of(folder)
    if found is None:
        raise ConfigError(f"{folder} has no readable session")
    if system not in (None, found.system):
        raise ConfigError(f"{folder} is of system {found.system!r}, not of {system!r}")
    unreadable: list[str] = []
    session = stored_session(folder, system=found.system, unreadable=unreadable)
    if session is None:
        more = f": {unreadable[0]}" if unreadable else ""
        raise ConfigError(f"{folder} has no readable record{more}")
    return session
