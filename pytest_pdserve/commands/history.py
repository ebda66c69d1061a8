"""``pdserve history``: years of nights in one folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.commands import history_prune
from pytest_pdserve.commands import history_trend
from pytest_pdserve.commands.arguments import add_history
from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import history_folder
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    import pandas as pd

    from pytest_pdserve.history.importing import ImportedSession
    from pytest_pdserve.history.store import Store

NAME = "history"
TEXT = "Keep years of nights in one folder: import, list, show, trend, exclude, prune"
LAST = 30
"""Sessions or nights that are shown."""


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
        help="A session; or a cell: its topology, and its workload or the beginning of it",
    )
    text = "Leave a session out of baselines, trends and later judgements, in the open"
    exclude = _add_step(steps, "exclude", text, _exclude)
    exclude.add_argument("session", metavar="SESSION", help="Session, as list shows it")
    exclude.add_argument("--reason", required=True, metavar="TEXT", help="Why; kept with it")
    exclude.add_argument("--undo", action="store_true", help="Take the session back in")
    history_trend.add_parser(steps)
    history_prune.add_parser(steps)


def _add_step(
    steps: Any, name: str, text: str, act: Any, *, last: bool = False
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = steps.add_parser(name, help=text, description=text)
    made.set_defaults(act=act)
    add_history(made)
    add_project(made)
    made.add_argument(
        "--system", metavar="NAME", help="Only sessions of this system (default: of any)"
    )
    if last:
        made.add_argument(
            "--last", type=int, default=LAST, metavar="N", help="The newest N (%(default)s)"
        )
    return made


def _add_import(steps: Any) -> None:
    text = "Add sessions that the history lacks; a session that it has is left as it is"
    made = _add_step(steps, "import", text, _import)
    add_runs(made)
    made.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="RUNS",
        help="Run folders, or folders of them (default: the runs folder)",
    )


def run(options: argparse.Namespace) -> int:
    """Do one step.

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
    from pytest_pdserve.history.importing import import_folders
    from pytest_pdserve.history.importing import run_folders
    from pytest_pdserve.history.store import Store

    project = find_project(options)
    for path in options.paths:
        if not path.is_dir():
            raise ConfigError(
                f"{path}: expected a run folder or a folder of them; result files become run "
                "folders with pdserve import"
            )
    folders, torn = run_folders(options.paths or [project.runs])
    store = Store.create(history_folder(options, project))
    before = len(store.entries())
    added = same = 0
    for imported in import_folders(store, folders, options.system):
        _warn(imported.unreadable)
        added += imported.path is not None
        same += imported.path is None and imported.entry is not None
        _say(imported)
    joined = compact(store)
    _warn([*torn, *store.torn])
    now = len(store.entries())
    print(f"{added} sessions imported, {same} were there, {now} in all ({before} before)")
    if joined:
        print(f"{joined} files of one session each were joined to one a month")
    return ExitCode.OK if folders else ExitCode.NOT_JUDGED


def _say(imported: ImportedSession) -> None:
    if imported.entry is None:
        print(f"left out: {imported.folder} holds no record that can be read")
    elif imported.path is not None:
        print(f"imported {imported.entry.session.id}, {imported.entry.run_count} runs")


def _list(options: argparse.Namespace) -> int:
    from pytest_pdserve.report.history import session_lines

    store = _open(options)
    sessions = store.sessions()
    if options.system:
        sessions = sessions[sessions["system"] == options.system]
    print("\n".join(session_lines(sessions, store.folder, options.last)))
    _warn(store.torn)
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
        raise ConfigError(f"{len(options.what)} words: expected SESSION, or TOPOLOGY WORKLOAD")
    print("\n".join(lines))
    _warn(store.torn)
    return ExitCode.OK


def _one_cell(values: pd.DataFrame, workload: str) -> pd.DataFrame:
    """Return the rows of the one workload that begins so.

    :raises ConfigError: if none or several do.
    """
    names = [name for name in values["workload"].unique() if name.startswith(workload)]
    if workload not in names and len(names) != 1:
        some = ", ".join(sorted(names or values["workload"].unique())[:8])
        raise ConfigError(
            f"WORKLOAD {workload!r:.80}: expected the beginning of one workload of that topology "
            f"in the history; there are {some or 'none'}"
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
        raise ConfigError(f"{store.folder} holds no session {name!r:.80}; pdserve history list")
    raise ConfigError(f"session {name!r:.80} is of {len(found)} systems: choose with --system")


def _exclude(options: argparse.Namespace) -> int:
    from pytest_pdserve.history.exclusions import add_exclusion

    store = _open(options)
    session = _one_session(store, options.session, options.system)
    key = (session.system, session.session)
    if bool(session.excluded) is not options.undo:
        state = "excluded" if session.excluded else "not excluded"
        raise ConfigError(f"{options.session} is {state} already; nothing was written")
    path = add_exclusion(store.folder, key, options.reason, excluded=not options.undo)
    done = "taken back in" if options.undo else "excluded"
    print(f"{done}  {session.session}: {options.reason}\nwritten  {path}")
    return ExitCode.OK
