"""``pdserve serve``: deploy a topology and keep it running until interrupted."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import add_topology
from pytest_pdserve.commands.arguments import one_topology
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.session.project import DEFAULT_RUNS
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError

if TYPE_CHECKING:
    from pytest_pdserve.serving.deployment import Deployment
    from pytest_pdserve.session.project import Project

NAME = "serve"
SUITES = "suites"
TEXT = "Deploy a topology and keep it running until interrupted"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_topology(parser)
    add_system(parser)
    add_runs(parser)


def run(options: argparse.Namespace) -> int:
    """Deploy the topology until Ctrl-C or SIGTERM, its normal end."""
    from pytest_pdserve.backends.backend import Request
    from pytest_pdserve.backends.planned import plan_topology
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.results.redaction import redacting_files
    from pytest_pdserve.results.store import check_runs_folder
    from pytest_pdserve.results.store import create_run
    from pytest_pdserve.serving.clients import bench_client
    from pytest_pdserve.serving.stand_up import stand_up

    project = find_project(options)
    topology, system = one_topology(project, NAME), system_in(project)
    backend = backend_of(system)
    if backend.deployer is not None or not backend.starts_servers:
        raise ConfigError(
            f"system {system.name!r} is of kind {backend.name!r}, which starts no servers"
        )
    backend.check(system)
    backend.check_launch(system, plan_topology(system, topology, starting=True).launch)
    check_runs_folder(project.runs)
    for number in (signal.SIGTERM, signal.SIGINT):  # a background job inherits SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    store = create_run(project.runs, system.name)
    logs = store.logs(topology.id)

    def progress(text: str) -> None:
        print(f"pdserve {topology.id}: {text}", flush=True)

    request = Request(folder=store.folder / backend.name, progress=progress)
    with (
        redacting_files(store.folder),
        backend.acquire(system, request) as nodes,
        bench_client(system, nodes, store.folder / "client", measuring=False) as bench,
        stand_up(nodes, topology, system, bench=bench, logs=logs, progress=progress) as deployment,
    ):
        _keep_running(deployment, logs, project, options.config_file)
    return 0


def _keep_running(deployment: Deployment, logs: Path, project: Project, ini: str | None) -> None:
    """Print the endpoint, and watch the servers."""
    key = logs.parent.parent / "api-key"
    try:
        _write_key(key, deployment.api_key)
        print(_ready_text(deployment, logs, key), flush=True)
        measure = measure_line(deployment, project, key=key, ini=ini)
        print(f"measure   {measure}\nCtrl-C ends it.", flush=True)
        while True:
            deployment.check_alive()
            time.sleep(1.0)
    except KeyboardInterrupt:
        print("pdserve: stopping the servers", flush=True)
    finally:
        key.unlink(missing_ok=True)


def _write_key(path: Path, key: str) -> None:
    try:
        path.touch(mode=0o600)
        path.write_text(key)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error


def _ready_text(deployment: Deployment, logs: Path, key: Path) -> str:
    url, cat = deployment.url, f"$(cat {shlex.quote(str(key))})"
    request = {"model": deployment.system.model.path, "prompt": "bado fami", "max_tokens": 16}
    return "\n".join(
        [
            f"endpoint  {url}",
            f"logs      {logs}",
            f"key       {key} (only you can read it)",
            f'try       curl {url}/v1/completions -H "Authorization: Bearer {cat}" '
            f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}",
        ]
    )


def measure_line(deployment: Deployment, project: Project, *, key: Path, ini: str | None) -> str:
    """Return a shell line that measures *deployment* from any folder while it runs.

    :param key: file that holds its API key.
    :param ini: ini file of the project, if one was named.
    """
    own = (project.rootdir / SUITES).is_dir()
    words = [sys.executable, "-m", "pytest", "--rootdir", str(project.rootdir)]
    words += ["-c", str(Path(ini).absolute())] if ini is not None else []
    words += [SUITES] if own else ["--pyargs", "pytest_pdserve.suites"]
    words += ["--system", deployment.system.name, "--topology", deployment.topology.id]
    words += ["--pdserve-base-url", deployment.url]
    for server in deployment.instances:
        words += ["--pdserve-instance-url", f"{server.role}={server.url}"]
    if project.runs != project.rootdir / DEFAULT_RUNS:
        words += ["--pdserve-runs", str(project.runs)]
    folder, file = shlex.quote(str(project.rootdir)), shlex.quote(str(key))
    return f'cd {folder} && PDSERVE_API_KEY="$(cat {file})" {shlex.join(words)}'
