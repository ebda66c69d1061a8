"""Create the benchmark client of a session, according to its kind."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.hosts.versions import find_versions
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.client import CommandClient
from pytest_pdserve.serving.client import Load
from pytest_pdserve.serving.client import prompt_seed
from pytest_pdserve.serving.worker import WorkerClient
from pytest_pdserve.values.secrets import SESSION_KEY_PREFIX
from pytest_pdserve.values.system import CLIENTS_OF_VLLM
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload


def new_api_key() -> str:
    """Return a new API key for a session, with the prefix by which redaction finds it."""
    return SESSION_KEY_PREFIX + secrets.token_urlsafe(24)


@contextlib.contextmanager
def bench_client(
    system: System, allocation: Allocation, folder: Path, *, measuring: bool = True
) -> Iterator[BenchClient]:
    """Yield the client of *system*; stop its processes on exit.

    :param folder: its own folder in the run folder; need not exist.
    :param measuring: whether it will measure: then vLLM is imported at once.
    :raises LaunchError: if it cannot be started.
    """
    kind = backend_of(system).client_kind(system)
    endpoint = allocation.endpoint
    key = new_api_key() if endpoint is None else endpoint.api_key
    client: BenchClient
    if kind == "vllm":
        client = worker = WorkerClient(
            system=system, allocation=allocation, folder=folder, api_key=key
        )
        if measuring:
            worker.start()
    else:
        version = None if kind in CLIENTS_OF_VLLM else find_versions().get("pytest-pdserve")
        client = CommandClient(kind=kind, allocation=allocation, api_key=key, version=version)
    try:
        yield client
    finally:
        client.close()


def prepare(
    bench: BenchClient,
    workloads: Sequence[Workload],
    topology: Topology,
    system: System,
    *,
    store: RunStore,
    repeats: int,
    shares: bool,
) -> None:
    """Start generating the prompts of the next runs of each workload, while servers start.

    Does nothing for an endpoint that is already up: it has to be asked for its model first.

    :param repeats: runs of each on this start.
    :param shares: whether the topology shares its instances with others.
    """
    if not backend_of(system).starts_servers:
        return
    loads = []
    for workload in workloads:
        first = store.next_repeat(topology.id, workload)
        for repeat in range(first, first + repeats):
            seed = prompt_seed(workload, repeat, store.session, topology, shares=shares)
            loads.append(
                Load(
                    workload=workload,
                    system=system,
                    seed=seed,
                    base_url="http://127.0.0.1:1",  # not used
                    result=store.folder / "none",
                )
            )
    bench.prepare(loads)
