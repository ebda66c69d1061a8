"""``pdserve history prune``: arrays and logs of old sessions removed, their values kept."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.commands.arguments import add_history
from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import history_folder
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

_MAX_DAYS = 36_500

if TYPE_CHECKING:
    from pytest_pdserve.history.pruning import RunFolder
    from pytest_pdserve.session.project import Project

DAYS = 90
"""Age from which arrays and logs go."""
GIB = 2**30


def add_parser(steps: Any) -> None:
    """Add the step to ``pdserve history``."""
    text = "Remove arrays and logs of old sessions from the runs folder; records stay"
    more = f"{text}, and so does all of a session that a baseline names"
    made = steps.add_parser("prune", help=text, description=more)
    made.set_defaults(act=run)
    add_history(made)
    add_project(made)
    add_runs(made)
    made.add_argument(
        "--older-than",
        type=float,
        default=DAYS,
        metavar="DAYS",
        help="Age in days from which they go, at least 1 (%(default)s)",
    )
    made.add_argument(
        "--max-size",
        type=float,
        metavar="GIB",
        help="Size of the runs folder above which younger ones go too, oldest first (default: any)",
    )
    made.add_argument("--yes", action="store_true", help="Remove; without it they are only listed")


def run(options: argparse.Namespace) -> int:
    """List what would go, or remove it.

    :returns: the exit code.
    :raises StoreError: if something cannot be removed.
    """
    from pytest_pdserve.history import pruning

    days, most = options.older_than, options.max_size
    if not 1 <= days <= _MAX_DAYS:
        raise ConfigError(f"--older-than {days:g}: expected 1 to {_MAX_DAYS:,} days")
    if most is not None and not (math.isfinite(most) and most >= 0):
        raise ConfigError(f"--max-size {most}: expected a number of GiB, 0 or more")
    project, now = find_project(options), datetime.now(UTC)
    planned = pruning.plan_pruning(
        project.runs,
        named=pruning.named_by_baselines(_baseline_folders(project)),
        older_than=timedelta(days=days),
        max_bytes=None if most is None else int(most * GIB),
        now=now,
    )
    print("\n".join(_lines(planned, project.runs)))
    partials = _partials(history_folder(options, project), now)
    for path in partials:
        print(f"left by an interrupted write: {path}")
    if options.yes:
        for folder in (each for each in planned if each.goes):
            pruning.remove(folder)
        for path in partials:
            path.unlink(missing_ok=True)
        print("removed")
    else:
        print("nothing was removed; --yes removes it")
    return ExitCode.OK


def _baseline_folders(project: Project) -> list[Path]:
    from pytest_pdserve.results.baselines import state_folder

    return [*project.baseline_folders, state_folder() / "baselines"]


def _partials(history: Path, now: datetime) -> list[Path]:
    from pytest_pdserve.history.files import partial_paths
    from pytest_pdserve.history.pruning import old_partials

    return old_partials(partial_paths(history), now)


def _lines(planned: Sequence[RunFolder], runs: Path) -> list[str]:
    from pytest_pdserve.report.history import size_text
    from pytest_pdserve.report.table import text_table

    rows = [
        (
            *(each.began.date().isoformat(), each.path.name, size_text(each.kept_bytes)),
            *(size_text(each.arrays_bytes), size_text(each.logs_bytes)),
            *("goes" if each.goes else "stays", each.why),
        )
        for each in planned
        if each.removable
    ]
    going = [each for each in planned if each.goes]
    freed, size = sum(each.removable for each in going), sum(each.size for each in planned)
    nights = len({each.began.date() for each in planned})
    columns = ("began", "session", "records", "arrays", "logs", "arrays and logs", "why")
    return [
        *(text_table(columns, rows, "llrrrll") if rows else []),
        f"{runs}: {len(planned)} sessions, {size_text(size)}"
        + (f", {size_text(size // nights)} a night" if nights else ""),
        f"arrays and logs of {len(going)} sessions go: {size_text(freed)}",
    ]
