"""Arguments shared by several commands of ``pdserve``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.session.project import DEFAULT_HISTORY
from pytest_pdserve.session.project import DEFAULT_RUNS
from pytest_pdserve.session.project import DEFAULT_SYSTEM
from pytest_pdserve.session.project import DEFAULT_TOPOLOGY
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies

if TYPE_CHECKING:
    from pytest_pdserve.session.project import Project


def add_system(parser: argparse.ArgumentParser, *, otherwise: str = DEFAULT_SYSTEM) -> None:
    """Add ``--system``, and the arguments that choose its project.

    :param otherwise: default without a flag or an ini key, for the help.
    """
    parser.add_argument(
        "--system",
        metavar="NAME",
        help="Folder of baselines/ with a system.toml (default: ini key pdserve_system, else "
        f"{otherwise})",
    )
    add_project(parser)


def add_project(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose the project: its root, or its ini file."""
    group = parser.add_argument_group(
        "project", "pytest's root has baselines/ and runs/, and its ini keys are the defaults"
    )
    group.add_argument(
        "--rootdir", metavar="DIR", help="Root of the project (default: found as pytest does)"
    )
    group.add_argument(
        "-c",
        "--config-file",
        metavar="FILE",
        help="Ini file of the project (default: found as pytest does)",
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add ``--runs``."""
    parser.add_argument(
        "--runs",
        metavar="DIR",
        help="Folder of records and logs (default: ini key pdserve_runs, else "
        f"{DEFAULT_RUNS} in the project's root)",
    )


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add ``--history``."""
    parser.add_argument(
        "--history",
        type=Path,
        metavar="DIR",
        help="Folder of the history (default: ini key pdserve_history, else "
        f"{DEFAULT_HISTORY} in the project's root)",
    )


def history_folder(options: argparse.Namespace, project: Project) -> Path:
    """Return the folder of the history: from *options*, an ini key, or the project's."""
    given: Path | None = options.history
    if given is not None:
        return given
    return project.history or project.rootdir / DEFAULT_HISTORY


def add_topology(parser: argparse.ArgumentParser, *, otherwise: str = DEFAULT_TOPOLOGY) -> None:
    """Add ``--topology``.

    :param otherwise: default without a flag or an ini key, for the help.
    """
    parser.add_argument(
        "--topology",
        metavar="ID",
        help=f"Topology, e.g. 1p3d (default: ini key pdserve_topology, else {otherwise})",
    )


def one_topology(project: Project, command: str) -> Topology:
    """Return the requested topology.

    :raises ConfigError: if several are requested.
    """
    topologies = parse_topologies(project.topology)
    if len(topologies) != 1:
        raise ConfigError(
            f"pdserve {command} takes one topology, got {len(topologies)}; choose with --topology"
        )
    return topologies[0]


def add_stored(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose stored sessions: system, runs folder, run ids."""
    add_system(parser)
    add_runs(parser)
    parser.add_argument(
        "run_ids", nargs="*", metavar="RUN", help="Folders in it (default: all comparable ones)"
    )


def next_lines(command: str, path: Path | None = None) -> Sequence[str]:
    """Return lines with the written file, and the next command."""
    return [*([f"written  {path}"] if path else []), f"next     {command}"]
