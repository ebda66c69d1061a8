"""``pdserve history prune``: remove arrays and logs of old sessions, and keep their values."""

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

if TYPE_CHECKING:
    from pytest_pdserve.history.pruning import RunFolder
    from pytest_pdserve.session.project import Project

DAYS = 90
"""Default age in days from which arrays and logs are removed."""
_MAX_DAYS = 36_500
"""Maximum of ``--older-than``: 100 years."""
GIB = 2**30


def add_parser(steps: Any) -> None:
    """Add the step to ``pdserve history``."""
    text = "Remove arrays and logs of old sessions from the runs folder; records stay"
    more = f"{text}, and sessions in a baseline stay complete"
    step = steps.add_parser("prune", help=text, description=more)
    step.set_defaults(act=run)
    add_history(step)
    add_project(step)
    add_runs(step)
    step.add_argument(
        "--older-than",
        type=float,
        default=DAYS,
        metavar="DAYS",
        help="Age in days from which they are removed, at least 1 (%(default)s)",
    )
    step.add_argument(
        "--max-size",
        type=float,
        metavar="GIB",
        help="Size of the runs folder above which newer ones are removed too, oldest first "
        "(default: any)",
    )
    step.add_argument("--yes", action="store_true", help="Remove them (default: only list them)")


def run(options: argparse.Namespace) -> int:
    """List what would be removed, or remove it.

    :returns: the exit code.
    :raises StoreError: if something cannot be removed.
    """
    from pytest_pdserve.history import pruning

    days, max_gib = options.older_than, options.max_size
    if not 1 <= days <= _MAX_DAYS:
        raise ConfigError(f"--older-than {days:g}: expected 1 to {_MAX_DAYS:,} days")
    if max_gib is not None and not (math.isfinite(max_gib) and max_gib >= 0):
        raise ConfigError(f"--max-size {max_gib}: expected a number of GiB, 0 or more")
    project, now = find_project(options), datetime.now(UTC)
    planned = pruning.plan_pruning(
        project.runs,
        named=pruning.named_by_baselines(_baseline_folders(project)),
        older_than=timedelta(days=days),
        max_bytes=None if max_gib is None else int(max_gib * GIB),
        now=now,
    )
    print("\n".join(_lines(planned, project.runs)))
    partials = _partials(history_folder(options, project), now)
    for path in partials:
        print(f"left by an interrupted write: {path}")
    if options.yes:
        for folder in (each for each in planned if each.remove):
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
            *("remove" if each.remove else "keep", each.why),
        )
        for each in planned
        if each.removable
    ]
    removed = [each for each in planned if each.remove]
    freed, size = sum(each.removable for each in removed), sum(each.size for each in planned)
    nights = len({each.began.date() for each in planned})
    columns = ("began", "session", "records", "arrays", "logs", "arrays and logs", "why")
    return [
        *(text_table(columns, rows, "llrrrll") if rows else []),
        f"{runs}: {len(planned)} sessions, {size_text(size)}"
        + (f", {size_text(size // nights)} a night" if nights else ""),
        f"arrays and logs of {len(removed)} sessions to remove: {size_text(freed)}",
    ]
