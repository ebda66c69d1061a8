"""``pdserve compare``: two measurements side by side, and what differs between them."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_project
from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_topology
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.topology import Topology

if TYPE_CHECKING:
    from pytest_pdserve.values.comparison import Comparison

NAME = "compare"
TEXT = "Compare two sessions, records, baselines, result files, or figures"
DESCRIPTION = (
    f"{TEXT}: what differs first, then every metric with its change (docs/comparing.md). "
    "Exit codes: 0 shown, 1 worse than --fail-worse, 4 bad input, 6 unlike loads, or a value that "
    "is missing where there is a limit"
)
_MAX_WORSE_PCT = 1000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    _add_choices(parser)
    parser.add_argument(
        "--format", choices=("json", "md", "text"), default="text", help="Output (%(default)s)"
    )
    parser.add_argument(
        "--fail-worse",
        metavar="PCT",
        help="Exit 1 if a judged metric of B is worse by more per cent, by ratio (default: no "
        "limit)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="With --fail-worse, accept that cells of A have no counterpart in B",
    )
    for letter in "ab":
        parser.add_argument(
            f"side_{letter}",
            metavar=letter.upper(),
            help="Session folder, folder of sessions, record, baseline or result file, or name of "
            "a session or of a system with figures or a baseline",
        )


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that filter a side, or complete its files."""
    add_topology(parser, otherwise="unknown, which may be any")
    add_project(parser)
    add_runs(parser)
    parser.add_argument(
        "--system", metavar="NAME", help="System to use if a side has several (default: none)"
    )
    parser.add_argument(
        "--client", metavar="KIND", help="Client to use if a side has several (default: none)"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="Data set of result files that do not name it (default: unknown)",
    )
    for letter in "ab":
        parser.add_argument(
            f"--{letter}",
            action="append",
            default=[],
            metavar="COMPONENT=VERSION",
            help=f"Use only runs of {letter.upper()} with this version, e.g. vllm=0.15.1; may be "
            "given several times (default: all)",
        )


def run(options: argparse.Namespace) -> int:
    """Compare two sides, and print the comparison.

    :returns: the exit code.
    :raises ConfigError: if a side cannot be read.
    """
    from pytest_pdserve.judge.two_sides import compare
    from pytest_pdserve.session.measured_sources import SideOptions
    from pytest_pdserve.session.measured_sources import find_measurements

    max_worse = _fraction(options.fail_worse)
    if options.partial and max_worse is None:
        raise ConfigError(
            "--partial without --fail-worse has no effect: give both, or leave it out"
        )
    topology = None if options.topology is None else Topology.parse(options.topology)
    chosen = [_versions(letter, getattr(options, letter)) for letter in "ab"]
    project = find_project(options)
    a, b = (
        find_measurements(
            argument,
            project,
            SideOptions(
                topology=topology,
                dataset=options.dataset,
                system=options.system,
                client=options.client,
                only=only,
            ),
        )
        for argument, only in zip((options.side_a, options.side_b), chosen, strict=True)
    )
    comparison = compare(a, b, fail_worse=max_worse, partial=options.partial)
    print(_render(comparison, options.format), end="")
    return comparison.exit_code


def _render(comparison: Comparison, form: str) -> str:
    if form == "json":
        from pytest_pdserve.results.kinds import COMPARISON

        return json.dumps(COMPARISON.dump(comparison, "the comparison")) + "\n"
    from pytest_pdserve.report.compare import markdown
    from pytest_pdserve.report.compare import text_lines

    return markdown(comparison) if form == "md" else "\n".join(text_lines(comparison)) + "\n"


def _fraction(text: str | None) -> float | None:
    """Return a percentage as a fraction.

    :raises ConfigError: if it is not a number in range.
    """
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_WORSE_PCT:
        raise ConfigError(
            f"--fail-worse {text!r:.60}: expected per cent, from 0 to {_MAX_WORSE_PCT:g}"
        )
    return value / 100


def _versions(letter: str, given: Sequence[str]) -> dict[str, str]:
    """Return the versions that filter the runs of a side.

    :raises ConfigError: if one is not of the form ``COMPONENT=VERSION``.
    """
    found = {}
    for text in given:
        component, _, version = text.partition("=")
        if not (component and version):
            raise ConfigError(
                f"--{letter} {text!r:.60}: expected COMPONENT=VERSION, such as vllm=0.15.1"
            )
        found[component] = version
    return found
