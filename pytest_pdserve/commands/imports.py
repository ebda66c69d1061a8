"""``pdserve import``: records of results that were measured elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import add_topology
from pytest_pdserve.commands.arguments import one_topology
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.errors import ConfigError

if TYPE_CHECKING:
    from pytest_pdserve.results.imported import Imported
    from pytest_pdserve.results.imported import Readable
    from pytest_pdserve.session.project import Project
    from pytest_pdserve.values.system import System
    from pytest_pdserve.values.topology import Topology

NAME = "import"
TEXT = "Make records of results that were measured elsewhere"
DESCRIPTION = (
    f"{TEXT}: by vllm bench serve, vllm bench sweep, sglang, InferenceX or llm-d, and CSV tables "
    "of nightly values (docs/importing.md). What a file does not say stays unknown"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    needed = "it must be given: no result says it"
    add_topology(parser, otherwise=needed)
    add_system(parser, otherwise=needed)
    add_runs(parser)
    add_unsaid(parser)
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="File of one or more results, folder of vllm bench sweep, or of CSV tables",
    )


def add_unsaid(parser: argparse.ArgumentParser) -> None:
    """Add what says of results what their files do not, besides system and topology."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="Data set of the runs (--dataset-name), where files do not say it (default: unknown)",
    )
    parser.add_argument(
        "--vllm-version", metavar="VERSION", help="Version of vLLM that served (default: unknown)"
    )


def run(options: argparse.Namespace) -> int:
    """Import each result, and print its record and what sanity says of it."""
    from pytest_pdserve.results.imported import read_results
    from pytest_pdserve.results.store import check_runs_folder
    from pytest_pdserve.results.tables import tables_at

    project = find_project(options)
    tables = all(map(tables_at, options.results))
    _check_chosen(project, ("system",) if tables else ("topology", "system"))
    chosen = not tables or "topology" in project.chosen
    topology, system = one_topology(project, NAME) if chosen else None, system_in(project)
    _check_measurable(system)
    check_dataset(options.dataset)
    check_runs_folder(project.runs)
    results, left_out = read_results(options.results, options.dataset)
    if topology is None:
        _check_topologies(results)
    for sentence in left_out:
        print(f"left out: {sentence}")
    print("\n".join(_lines(_store(options, project, results, topology, system))))
    return 0


def store_foreign(
    options: argparse.Namespace, project: Project, results: Sequence[Readable], command: str
) -> Sequence[Imported]:
    """Write the records of *results* to the runs folder, as ``pdserve import`` does.

    :param command: name of the command, for messages.
    :raises ConfigError: if it is not known what served them.
    :raises StoreError: if a record cannot be written.
    """
    from pytest_pdserve.results.store import check_runs_folder

    lacking = any(each.run.topology is None for each in results)
    _check_chosen(project, ("topology", "system") if lacking else ("system",), command)
    topology = one_topology(project, command) if "topology" in project.chosen else None
    system = system_in(project)
    _check_measurable(system)
    check_runs_folder(project.runs)
    return _store(options, project, results, topology, system)


def _store(
    options: argparse.Namespace,
    project: Project,
    results: Sequence[Readable],
    topology: Topology | None,
    system: System,
) -> Sequence[Imported]:
    from pytest_pdserve.results.imported import store_results

    return store_results(
        results,
        topology=topology,
        system=system.name,
        versions={"vllm": options.vllm_version} if options.vllm_version else {},
        runs=project.runs,
    )


def _lines(imported: Sequence[Imported]) -> Iterator[str]:
    """Return each record's file and findings; what is said of all records comes last, once."""
    said = [
        [f"  {finding.severity}: {finding.message}" for finding in made.record.findings]
        for made in imported
        if made.record is not None
    ]
    common = [line for line in said[0] if all(line in lines for lines in said)] if said[1:] else []
    for made in imported:
        if made.record is None:
            yield f"{made.where} was imported before as {made.path}; nothing was written"
            continue
        yield str(made.path)
        yield from (line for line in said.pop(0) if line not in common)
    yield from ([" all records:", *common] if common else [])


def _check_topologies(results: Sequence[Readable]) -> None:
    """Refuse results that do not say their topology, before anything is written.

    :raises ConfigError: if one does not.
    """
    lacking = next((each.run.where for each in results if each.run.topology is None), None)
    if lacking is not None:
        raise ConfigError(
            f"{lacking}: the table has no topology; give it with --topology, or add the column"
        )


def _check_chosen(project: Project, needed: Sequence[str], command: str = NAME) -> None:
    """Refuse to guess what served: no result says it.

    :raises ConfigError: if neither a flag nor an ini key does.
    """
    missing = [name for name in needed if name not in project.chosen]
    if missing:
        flags = " and ".join(f"--{name}" for name in missing)
        keys = " and ".join(f"pdserve_{name}" for name in missing)
        raise ConfigError(
            f"pdserve {command} needs {flags}: no result says what served it; give {flags}, or set "
            f"{keys} in the ini file"
        )


def _check_measurable(system: System) -> None:
    if system.simulated:
        raise ConfigError(f"{system.name!r} is simulated: results of real servers are not its own")
    if system.figures is not None:
        raise ConfigError(f"{system.name!r} is figures: results of real servers are not its own")


def check_dataset(name: str | None) -> None:
    """Refuse the name of a data set that no record can be filed by.

    :raises ConfigError: if it is one.
    """
    from pytest_pdserve.values.workload import NAME as DATASET

    if name is not None and not DATASET.fullmatch(name):
        raise ConfigError(
            f"--dataset {name!r:.60} is no name of letters, digits, '.', '_' and '-', "
            "such as random or sharegpt; records are filed by it"
        )
