"""``pdserve history``: years of nights in one folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.commands import history_prune
from pytest_pdserve.commands import history_trend
from pytest_pdserve.commands.arguments import add_history
from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_topology
from pytest_pdserve.commands.arguments import history_folder
from pytest_pdserve.commands.imports import add_missing_facts
from pytest_pdserve.commands.imports import check_dataset
from pytest_pdserve.commands.imports import store_foreign
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    import pandas as pd

    from pytest_pdserve.history.importing import ImportedSession
    from pytest_pdserve.history.store import Store
    from pytest_pdserve.results.loose import LooseFiles
    from pytest_pdserve.session.project import Project

NAME = "history"
TEXT = "Keep years of nights in one folder: import, list, show, trend, exclude, prune"
LAST = 30
"""Default number of sessions or nights that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's steps."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_import(steps)
    text = "List the sessions of the history, the newest last"
    _add_step(steps, "list", text, _list, last=True)
    text = "Show one session, or one cell night by night"
    show = _add_step(steps, "show", text, _show, last=True)
    show.add_argument(
        "what",
        nargs="+",
        metavar="NAME",
        help="A session; or a cell: its topology, and its workload or a prefix of it",
    )
    text = "Exclude a session from baselines, trends and later verdicts, with a reason"
    exclude = _add_step(steps, "exclude", text, _exclude)
    exclude.add_argument("session", metavar="SESSION", help="Session, as list shows it")
    exclude.add_argument("--reason", required=True, metavar="TEXT", help="Reason; stored with it")
    exclude.add_argument("--undo", action="store_true", help="End the exclusion of the session")
    history_trend.add_parser(steps)
    history_prune.add_parser(steps)


def _add_step(
    steps: Any, name: str, text: str, act: Any, *, last: bool = False, more: str | None = None
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = steps.add_parser(name, help=text, description=more or text)
    parser.set_defaults(act=act)
    add_history(parser)
    add_project(parser)
    parser.add_argument(
        "--system", metavar="NAME", help="Only sessions of this system (default: of any)"
    )
    if last:
        parser.add_argument(
            "--last", type=int, default=LAST, metavar="N", help="The newest N (%(default)s)"
        )
    return parser


def _add_import(steps: Any) -> None:
    text = "Add sessions that are not in the history; existing sessions stay unchanged"
    more = (
        f"{text}. Files of other tools are first imported into the runs folder, as pdserve "
        "import does"
    )
    step = _add_step(steps, "import", text, _import, more=more)
    add_runs(step)
    add_topology(step, otherwise="required if a result does not name it")
    add_missing_facts(step)
    step.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="Run folders or folders of them; records; results of other tools and CSV tables, or a "
        "folder of these (default: the runs folder)",
    )


def run(options: argparse.Namespace) -> int:
    """Run one step.

    :returns: the exit code.
    """
    if getattr(options, "last", 1) < 1:
        raise ConfigError(f"--last {options.last}: expected at least 1")
    code: int = options.act(options)
    return code


def _open(options: argparse.Namespace) -> Store:
    from pytest_pdserve.history.store import Store

    return Store.open(history_folder(options, find_project(options)))


def _warn(sentences: Sequence[str]) -> None:
    for sentence in dict.fromkeys(sentences):
        print(f"pdserve: {sentence}", file=sys.stderr)


def _import(options: argparse.Namespace) -> int:
    from pytest_pdserve.history.compaction import compact
    from pytest_pdserve.history.store import Store

    project = find_project(options)
    check_dataset(options.dataset)
    found = _find(options, project)
    store = Store.create(history_folder(options, project))
    before = len(store.entries())
    added = same = 0
    for imported in _imported(options, project, store, found):
        _warn(imported.unreadable)
        added += imported.path is not None
        same += imported.path is None and imported.entry is not None
        _say(imported)
    joined = compact(store)
    _warn([*found.unreadable, *store.unreadable])
    now = len(store.entries())
    print(f"{added} sessions imported, {same} were there, {now} in all ({before} before)")
    if joined:
        print(f"{joined} files of one session each were joined to one a month")
    return ExitCode.OK if found.folders or found.loose else ExitCode.NOT_JUDGED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Contents of the paths of an import."""

    folders: Sequence[Path]
    unreadable: Sequence[str]
    loose: LooseFiles | None


def _find(options: argparse.Namespace, project: Project) -> _Found:
    """Return the run folders of all paths, and the contents of the other paths.

    :raises ConfigError: if nothing in a path can be imported.
    """
    from pytest_pdserve.history.importing import run_folders
    from pytest_pdserve.results.loose import read_loose

    if not options.paths:
        folders, unreadable = run_folders([project.runs])
        return _Found(folders=folders, unreadable=unreadable, loose=None)
    there: list[Path] = []
    sentences: list[str] = []
    others: list[Path] = []
    for path in options.paths:
        folders, unreadable = run_folders([path]) if os.path.isdir(path) else ([], [])
        there += folders
        sentences += unreadable
        if not folders and not unreadable and not _is_empty(path):
            others.append(path)
    loose = read_loose(others, options.dataset) if others else None
    return _Found(folders=there, unreadable=sentences, loose=loose)


def _is_empty(path: Path) -> bool:
    """Tell whether *path* is an empty folder, such as a new runs folder."""
    return os.path.isdir(path) and not os.listdir(path)


def _imported(
    options: argparse.Namespace, project: Project, store: Store, found: _Found
) -> Iterator[ImportedSession]:
    """Import everything that was found; results of other tools go through the runs folder."""
    from pytest_pdserve.history.importing import import_folders
    from pytest_pdserve.history.importing import import_records

    folders = [*found.folders]
    if found.loose is not None:
        for sentence in found.loose.left_out:
            print(f"left out: {sentence}")
        if found.loose.results:
            imported = store_foreign(options, project, found.loose.results, "history import")
            folders += dict.fromkeys(each.path.parent.parent for each in imported)
        yield from import_records(store, found.loose.records, options.system)
    yield from import_folders(store, folders, options.system)


def _say(imported: ImportedSession) -> None:
    if imported.entry is None:
        print(f"left out: {imported.folder} has no readable record")
    elif imported.path is not None:
        print(f"imported {imported.entry.session.id}, {imported.entry.run_count} runs")


def _list(options: argparse.Namespace) -> int:
    from pytest_pdserve.report.history import session_lines

    store = _open(options)
    sessions = store.sessions()
    if options.system:
        sessions = sessions[sessions["system"] == options.system]
    print("\n".join(session_lines(sessions, store.folder, options.last)))
    _warn(store.unreadable)
    return ExitCode.OK


def _show(options: argparse.Namespace) -> int:
    from pytest_pdserve.report.history import cell_lines
    from pytest_pdserve.report.history import one_session_lines

    store = _open(options)
    if len(options.what) == 1:
        session = _one_session(store, options.what[0], options.system)
        values = store.values(session.system, sessions=[session.session])
        lines = one_session_lines(session, values)
    elif len(options.what) == 2:
        topology, workload = options.what
        values = _one_cell(store.values(options.system, topology), workload)
        lines = cell_lines(values, options.last)
    else:
        raise ConfigError(
            f"show takes one argument, SESSION, or two, TOPOLOGY WORKLOAD; got {len(options.what)}"
        )
    print("\n".join(lines))
    _warn(store.unreadable)
    return ExitCode.OK


def _one_cell(values: pd.DataFrame, workload: str) -> pd.DataFrame:
    """Return the rows of the only workload with a prefix.

    :raises ConfigError: if none or several have it.
    """
    names = [name for name in values["workload"].unique() if name.startswith(workload)]
    if workload not in names and len(names) != 1:
        some = ", ".join(sorted(names or values["workload"].unique())[:8])
        raise ConfigError(
            f"WORKLOAD {workload!r:.80}: expected the prefix of one workload of that topology "
            f"in the history: {some or 'it has none'}"
        )
    return values[values["workload"] == (workload if workload in names else names[0])]


def _one_session(store: Store, name: str, system: str | None) -> Any:
    """Return the row of one session.

    :raises ConfigError: if there is none, or of several systems.
    """
    sessions = store.sessions()
    found = sessions[
        (sessions["session"] == name) & (sessions["system"] == (system or sessions["system"]))
    ]
    if len(found) == 1:
        return next(found.itertuples())
    if found.empty:
        raise ConfigError(
            f"{store.folder} holds no session {name!r:.80}; pdserve history list shows all"
        )
    raise ConfigError(f"session {name!r:.80} is of {len(found)} systems: choose with --system")


def _exclude(options: argparse.Namespace) -> int:
    from pytest_pdserve.history.exclusions import add_exclusion

    store = _open(options)
    session = _one_session(store, options.session, options.system)
    key = (session.system, session.session)
    if bool(session.excluded) is not options.undo:
        state = "already excluded" if session.excluded else "not excluded"
        raise ConfigError(f"{options.session} is {state}; nothing was written")
    path = add_exclusion(store.folder, key, options.reason, excluded=not options.undo)
    done = "no longer excluded" if options.undo else "excluded"
    print(f"{done}  {session.session}: {options.reason}\nwritten  {path}")
    return ExitCode.OK
