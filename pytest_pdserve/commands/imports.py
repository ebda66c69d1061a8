"""``pdserve import``: records of result files that vllm bench serve wrote elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import add_topology
from pytest_pdserve.commands.arguments import one_topology
from pytest_pdserve.commands.arguments import system_named
from pytest_pdserve.session.settings import DEFAULT_SYSTEM
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError

NAME = "import"
TEXT = "Make records of result files that vllm bench serve wrote elsewhere"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_topology(parser)
    add_system(parser, default=DEFAULT_SYSTEM)
    add_runs(parser)
    parser.add_argument(
        "--dataset",
        default="unknown",
        metavar="NAME",
        help="--dataset-name of the runs, which their results do not tell (default: %(default)s)",
    )
    parser.add_argument(
        "--vllm-version", metavar="VERSION", help="Version of vLLM that served (default: unknown)"
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")


def run(options: argparse.Namespace) -> int:
    """Import each file, and print its record and what sanity says of it."""
    from pytest_pdserve.results.imported import import_result
    from pytest_pdserve.results.store import check_runs_folder
    from pytest_pdserve.results.store import create_run
    from pytest_pdserve.results.store import load_bench_result
    from pytest_pdserve.values.workload import NAME as DATASET

    system, topology = system_named(options.system), one_topology(options)
    if system.simulated:
        raise ConfigError(f"{system.name!r} is simulated: results of real servers are not its own")
    if system.figures is not None:
        raise ConfigError(f"{system.name!r} is figures: results of real servers are not its own")
    if not DATASET.fullmatch(options.dataset):
        raise ConfigError(
            f"--dataset {options.dataset!r:.60} is no name of letters, digits, '.', '_' and '-', "
            "such as random or sharegpt; records are filed by it"
        )
    check_runs_folder(options.runs)
    try:
        results = [(path, load_bench_result(path)) for path in options.results]
    except ClientError as error:
        raise ConfigError(str(error)) from error
    store = create_run(options.runs, system.name, label="imported")
    for source, result in results:
        record, path = import_result(
            result,
            source=source,
            topology=topology,
            system=system.name,
            dataset=options.dataset,
            versions={"vllm": options.vllm_version} if options.vllm_version else {},
            store=store,
        )
        print(path)
        for finding in record.findings:
            print(f"  {finding.severity}: {finding.message}")
    return 0
