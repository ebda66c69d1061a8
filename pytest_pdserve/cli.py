"""The ``pdserve`` command: ``plan`` shows what would run, ``serve`` runs it until interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.options import DEFAULT_RUNS
from pytest_pdserve.options import DEFAULT_SYSTEM
from pytest_pdserve.options import DEFAULT_TOPOLOGY
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies

if TYPE_CHECKING:
    from pytest_pdserve.serving.deployment import Deployment
    from pytest_pdserve.values.system import System

USAGE_ERROR = 4
"""Exit code for bad input, as pytest's own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :returns: 0, 1 for trouble with machines, 4 for bad input, 130 after an interrupt.
    """
    parser = argparse.ArgumentParser(
        prog="pdserve", description="Prefill/decode topologies: show them, stand them up."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("plan", "Print each node's commands and environment; touch nothing"),
        ("serve", "Stand a topology up and hold it until interrupted"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--topology",
            default=DEFAULT_TOPOLOGY,
            metavar="ID",
            help="Topology, e.g. 1p3d (default: %(default)s)",
        )
        command.add_argument(
            "--system",
            default=DEFAULT_SYSTEM,
            metavar="NAME",
            help="Folder of baselines/ with a system.toml (default: %(default)s)",
        )
        if name == "serve":
            command.add_argument(
                "--runs",
                default=DEFAULT_RUNS,
                type=Path,
                metavar="DIR",
                help="Folder for logs (default: %(default)s)",
            )
    options = parser.parse_args(arguments)
    try:
        system, topologies = _load(options.system, options.topology)
        if options.command == "plan":
            print("\n".join(_plan(system, topology) for topology in topologies))
            return 0
        return _serve(system, topologies, options.runs)
    except PdserveError as error:
        print(f"pdserve: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _load(name: str, topology: str) -> tuple[System, tuple[Topology, ...]]:
    from pytest_pdserve.results.systems import baseline_folders  # noqa: PLC0415
    from pytest_pdserve.results.systems import load_system  # noqa: PLC0415
    from pytest_pdserve.serving.model import with_model_path  # noqa: PLC0415

    topologies = parse_topologies(topology)
    return with_model_path(load_system(name, baseline_folders(Path.cwd()))), topologies


def _plan(system: System, topology: Topology) -> str:
    from pytest_pdserve.checks import planning  # noqa: PLC0415
    from pytest_pdserve.plan.host import planned_hosts  # noqa: PLC0415
    from pytest_pdserve.plan.placement import place  # noqa: PLC0415
    from pytest_pdserve.plan.ports import assign_ports  # noqa: PLC0415
    from pytest_pdserve.plan.router import router_command  # noqa: PLC0415
    from pytest_pdserve.plan.vllm import instance_commands  # noqa: PLC0415

    hosts = {host.name: host for host in planned_hosts(system)}
    placement = place(
        topology, tuple(hosts), system.cluster.gpus_per_node, default_tp=system.tensor_parallel
    )
    ports = assign_ports(placement, system.ports, planning(system))
    commands = [*instance_commands(placement, system, hosts=hosts, ports=ports)]
    router = router_command(placement, system, hosts=hosts, ports=ports)
    commands += [] if router is None else [router]
    idle = len(hosts) - len(placement.nodes)
    lines = [
        f"# {topology.id} on {system.name} ({system.description}): {len(placement.nodes)} nodes"
        + (f", {idle} idle" if idle else "")
        + "; {braces} are filled in by the allocation"
    ]
    for command in commands:
        lines += ["", f"# {command.name} on {command.node}", command.render()]
    return "\n".join(lines) + "\n"


def _serve(system: System, topologies: Sequence[Topology], runs: Path) -> int:
    from pytest_pdserve.checks import check_topology  # noqa: PLC0415
    from pytest_pdserve.results.store import check_runs_folder  # noqa: PLC0415
    from pytest_pdserve.results.store import create_run  # noqa: PLC0415
    from pytest_pdserve.serving.deployment import stand_up  # noqa: PLC0415
    from pytest_pdserve.session import acquire  # noqa: PLC0415

    if len(topologies) != 1:
        raise ConfigError(f"pdserve serve holds one topology, got {len(topologies)}")
    check_topology(system, topologies[0], touching=True)
    check_runs_folder(runs)
    for number in (signal.SIGTERM, signal.SIGINT):  # a background job inherits SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    with acquire(system) as allocation:
        logs = create_run(runs, system.name).logs(topologies[0].id)
        with stand_up(
            allocation,
            topologies[0],
            system,
            logs=logs,
            progress=lambda text: print(f"pdserve {topologies[0].id}: {text}", flush=True),
        ) as deployment:
            print(_ready_text(deployment, logs), flush=True)
            while True:
                deployment.check_alive()
                time.sleep(1.0)


def _ready_text(deployment: Deployment, logs: Path) -> str:
    url = deployment.url
    key = logs.parent.parent / "api-key"
    try:
        key.touch(mode=0o600)
        key.write_text(deployment.api_key)
    except OSError as error:
        raise StoreError(f"{key} cannot be written: {error.strerror}") from error
    return "\n".join(
        [
            f"endpoint  {url}",
            f"logs      {logs}",
            f"key       {key} (only you can read it)",
            f'try       curl {url}/v1/completions -H "Authorization: Bearer $(cat {key})" '
            "-H 'Content-Type: application/json' "
            f'-d \'{{"model": "{deployment.system.model.path}", "prompt": "bado fami", '
            '"max_tokens": 16}\'',
            f"measure   PDSERVE_API_KEY=$(cat {key}) pytest suites/ --pdserve-base-url {url} "
            f"--topology {deployment.topology.id}",
            "Ctrl-C ends it.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
