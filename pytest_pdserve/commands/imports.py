"""``pdserve import``: import results of other tools as records."""

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
TEXT = "Import results of other tools as records"
DESCRIPTION = (
    f"{TEXT}: by vllm bench serve, vllm bench sweep, sglang, InferenceX or llm-d, and CSV tables "
    "of nightly values (docs/importing.md). Facts that are not in a file stay unknown"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    needed = "required: it is not in the results"
    add_topology(parser, otherwise=needed)
    add_system(parser, otherwise=needed)
    add_runs(parser)
    add_missing_facts(parser)
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="File of one or more results, folder of vllm bench sweep, or of CSV tables",
    )


def add_missing_facts(parser: argparse.ArgumentParser) -> None:
    """Add arguments for facts that results do not contain, besides system and topology."""
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="Data set of the runs (--dataset-name), if files do not name it (default: unknown)",
    )
    parser.add_argument(
        "--vllm-version",
        metavar="VERSION",
        help="Version of vLLM of the servers (default: unknown)",
    )


def run(options: argparse.Namespace) -> int:
    """Import each result; print its record and its findings."""
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
    :raises ConfigError: if the system or a topology is unknown.
    :raises StoreError: if a record cannot be written.
    """
    from pytest_pdserve.results.store import check_runs_folder

    lacks_topology = any(each.run.topology is None for each in results)
    _check_chosen(project, ("topology", "system") if lacks_topology else ("system",), command)
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
    """Yield each record's file and findings; findings of all records come last, once."""
    findings = [
        [f"  {finding.severity}: {finding.message}" for finding in each.record.findings]
        for each in imported
        if each.record is not None
    ]
    common = (
        [line for line in findings[0] if all(line in lines for lines in findings)]
        if findings[1:]
        else []
    )
    for each in imported:
        if each.record is None:
            yield f"{each.where} was imported before as {each.path}; nothing was written"
            continue
        yield str(each.path)
        yield from (line for line in findings.pop(0) if line not in common)
    yield from ([" all records:", *common] if common else [])


def _check_topologies(results: Sequence[Readable]) -> None:
    """Raise if a result has no topology, before anything is written.

    :raises ConfigError: if one has none.
    """
    lacking = next((each.run.where for each in results if each.run.topology is None), None)
    if lacking is not None:
        raise ConfigError(
            f"{lacking}: the table has no topology; give it with --topology, or add the column"
        )


def _check_chosen(project: Project, needed: Sequence[str], command: str = NAME) -> None:
    """Raise if a topology or system is needed and was not given.

    :raises ConfigError: if neither a flag nor an ini key is set.
    """
    missing = [name for name in needed if name not in project.chosen]
    if missing:
        flags = " and ".join(f"--{name}" for name in missing)
        keys = " and ".join(f"pdserve_{name}" for name in missing)
        raise ConfigError(
            f"pdserve {command} needs {flags}, which results do not contain; give {flags}, or set "
            f"{keys} in the ini file"
        )


def _check_measurable(system: System) -> None:
    if system.simulated:
        raise ConfigError(
            f"{system.name!r} is simulated: results of real servers cannot be imported"
        )
    if system.figures is not None:
        raise ConfigError(
            f"{system.name!r} consists of figures: results of real servers cannot be imported"
        )


def check_dataset(name: str | None) -> None:
    """Raise if the name of a data set is invalid.

    :raises ConfigError: if it is.
    """
    from pytest_pdserve.values.workload import NAME as DATASET

    if name is not None and not DATASET.fullmatch(name):
        raise ConfigError(
            f"--dataset {name!r:.60} is not a name of letters, digits, '.', '_' and '-', "
            "such as random or sharegpt"
        )
