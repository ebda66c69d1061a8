"""Arguments that commands of ``pdserve`` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.session.settings import DEFAULT_RUNS
from pytest_pdserve.session.settings import DEFAULT_TOPOLOGY
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies

if TYPE_CHECKING:
    from pytest_pdserve.values.system import System


def add_system(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add ``--system``, which must be given where there is no default."""
    text = "Folder of baselines/ with a system.toml"
    parser.add_argument(
        "--system",
        required=default is None,
        default=default,
        metavar="NAME",
        help=text if default is None else f"{text} (default: %(default)s)",
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add ``--runs``."""
    parser.add_argument(
        "--runs",
        default=DEFAULT_RUNS,
        type=Path,
        metavar="DIR",
        help="Folder of records and logs (default: %(default)s)",
    )


def add_topology(parser: argparse.ArgumentParser) -> None:
    """Add ``--topology``."""
    parser.add_argument(
        "--topology",
        default=DEFAULT_TOPOLOGY,
        metavar="ID",
        help="Topology, e.g. 1p3d (default: %(default)s)",
    )


def system_named(name: str) -> System:
    """Read a system file of the current folder's project, or a shipped one.

    :raises ConfigError: if there is none, or it is malformed.
    """
    from pytest_pdserve.backends.systems import load_system
    from pytest_pdserve.results.folders import baseline_folders
    from pytest_pdserve.serving.model import with_model_path

    return with_model_path(load_system(name, baseline_folders(Path.cwd())))


def one_topology(options: argparse.Namespace) -> Topology:
    """Return the one topology that was asked for.

    :raises ConfigError: if several were.
    """
    topologies = parse_topologies(options.topology)
    if len(topologies) != 1:
        raise ConfigError(f"pdserve {options.command} takes one topology, got {len(topologies)}")
    return topologies[0]


def add_stored(parser: argparse.ArgumentParser) -> None:
    """Add what names stored sessions: system, runs folder, run ids."""
    add_system(parser)
    add_runs(parser)
    parser.add_argument(
        "run_ids", nargs="*", metavar="RUN", help="Folders in it (default: all that are alike)"
    )


def next_lines(command: str, path: Path | None = None) -> Sequence[str]:
    """Return the lines that say what was written, and what comes next."""
    return [*([f"written  {path}"] if path else []), f"next     {command}"]
