"""``pdserve history trend``: when metrics changed, and what else changed in the same night."""

from __future__ import annotations

import argparse
import math
import sys
from datetime import date
from typing import Any

from pytest_pdserve.commands.arguments import add_history
from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.arguments import history_folder
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.trend import MIN_CHANGE


def add_parser(steps: Any) -> None:
    """Add the step to ``pdserve history``."""
    text = "Date steps and slow drifts, and show what changed that night; nothing is judged"
    step = steps.add_parser("trend", help=text, description=text)
    step.set_defaults(act=run)
    add_history(step)
    add_project(step)
    for name, of in (
        ("system", "NAME"),
        ("topology", "ID"),
        ("workload", "ID"),
        ("metric", "NAME"),
    ):
        step.add_argument(f"--{name}", metavar=of, help=f"Only this {name} (default: any)")
    step.add_argument(
        "--min-change",
        type=float,
        default=MIN_CHANGE * 100,
        metavar="PCT",
        help="Smallest change that is shown, in percent (%(default)s)",
    )
    step.add_argument(
        "--since",
        metavar="DATE",
        help="First night that is shown, e.g. 2026-11-01; all nights are analysed (default: any)",
    )
    step.add_argument(
        "--format", choices=("json", "text"), default="text", help="Output format (%(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the changes.

    :returns: the exit code, which does not depend on the changes.
    :raises ConfigError: if an argument or the history cannot be used, or ruptures is missing.
    """
    import msgspec

    from pytest_pdserve.history.store import Store
    from pytest_pdserve.report.trend import trend_lines
    from pytest_pdserve.study.trend_history import trend_of

    min_change, since = options.min_change, _date(options.since)
    if not 0 <= min_change < math.inf:
        raise ConfigError(f"--min-change {min_change}: expected percent, at least 0")
    store = Store.open(history_folder(options, find_project(options)))
    values = store.values(options.system, options.topology, options.workload, options.metric)
    if values.empty:
        raise ConfigError(
            f"history {store.folder} holds no value that the options select; see pdserve history "
            "list"
        )
    trend = trend_of(values, store.sessions(), min_change=min_change / 100, since=since)
    if options.format == "json":
        print(msgspec.json.encode(trend).decode())
    else:
        print("\n".join(trend_lines(trend)))
    for sentence in dict.fromkeys(store.unreadable):
        print(f"pdserve: {sentence}", file=sys.stderr)
    return ExitCode.OK


def _date(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--since {text!r:.40}: expected a date such as 2026-11-01") from error
