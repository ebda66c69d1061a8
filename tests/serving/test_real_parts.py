"""Real vLLM, real NIXL, real vllm-router on this machine: 1P1D, then what kills it.

NIXL's backend is LIBFABRIC where ``pdserve fabric install`` has worked, else UCX; ``make test-all``
has both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.fabric.folder import default_folder
from pytest_pdserve.backends.fabric.folder import find_installed
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.requests import read_requests
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import load_record
from pytest_pdserve.serving.clients import bench_client
from pytest_pdserve.serving.deployment import Deployment
from pytest_pdserve.serving.measure import measure
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.stand_up import stand_up
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
FABRIC = find_installed(default_folder()) is not None
NO_FABRIC = "libfabric is not installed: run `pdserve fabric install`"
WORKLOAD = Workload(input_len=130, output_len=32, num_prompts=12, max_concurrency=2)
SESSION = SessionRef(id="real-parts")
PROVENANCE = Provenance(versions={}, host={}, fingerprint="none")


@dataclass(frozen=True)
class Stood:
    """One topology that is up, and where its records go."""

    deployment: Deployment
    store: RunStore


def members(groups: set[int]) -> list[str]:
    """What still runs of process *groups*; vLLM's title hides the environment, not the group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.name()}")
    return found


@contextlib.contextmanager
def stood_up(
    topology: str, folder: Path, *, nodes: int, name: str = "local-cpu"
) -> Iterator[Stood]:
    system = with_model_path(load_system(name, SHIPPED))
    # An instance whose partner was killed does not end by SIGTERM.
    system = replace(
        system,
        cluster=replace(system.cluster, nodes=nodes),
        limits=replace(system.limits, stop_s=5.0),
    )
    store = RunStore(folder=folder, session=SESSION)
    asked = Request(folder=folder / "local", progress=lambda _: None)
    with (
        backend_of(system).acquire(system, asked) as allocation,
        bench_client(system, allocation, folder / "client") as bench,
        stand_up(
            allocation,
            Topology.parse(topology),
            system,
            bench=bench,
            logs=store.logs(topology),
            progress=lambda _: None,
        ) as deployment,
    ):
        groups = {s.process.pid for s in deployment.servers if s.process and s.process.pid}
        assert len(members(groups)) > len(groups)
        yield Stood(deployment=deployment, store=store)
    assert members(groups) == []


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("local-fabric", marks=[] if FABRIC else pytest.mark.skip(NO_FABRIC)),
        pytest.param("local-cpu", marks=pytest.mark.slow if FABRIC else []),
    ],
)
def pd(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stood]:
    with stood_up("1p1d", tmp_path_factory.mktemp("pd"), nodes=2, name=request.param) as stood:
        yield stood


def mapped(stood: Stood, name: str) -> str:
    """Return the paths of the libraries that server *name* and its children have loaded."""
    server = next(server for server in stood.deployment.servers if server.name == name)
    assert server.process is not None
    leader = psutil.Process(server.process.pid)
    return "\n".join(
        each.path
        for process in (leader, *leader.children(recursive=True))
        for each in process.memory_maps()
    )


def run(stood: Stood, repeat: int) -> dict[str, Any]:
    record, path = measure(
        stood.deployment,
        WORKLOAD,
        repeat=repeat,
        start=0,
        store=stood.store,
        provenance=PROVENANCE,
    )
    assert load_record(path) == record
    assert [finding.message for finding in record.invalid] == []
    return RECORD.dump(record, path)


def test_a_record_of_prefill_and_decode_is_sane_and_complete(pd: Stood) -> None:
    record = run(pd, 0)
    assert record["metrics"]["completed"] == WORKLOAD.num_prompts
    assert record["metrics"]["kv_transfers"] == WORKLOAD.num_prompts
    # 130 tokens take two blocks of 128, each token 8 layers x (4 + 4) heads x 64 x 4 bytes.
    assert record["metrics"]["kv_bytes_per_request"] == 256 * 8 * 8 * 64 * 4
    assert record["metrics"]["mean_ttft_ms"] > record["metrics"]["mean_itl_ms"] > 0
    assert {process["name"] for process in record["processes"]} >= {"prefill[0]", "decode[0]"}
    rows = read_requests(Path(pd.store.folder, "1p1d", record["requests"]))
    assert len(rows) == WORKLOAD.num_prompts
    assert set(rows["output_tokens"]) == {32}
    mean_ms = rows["ttft_us"].mean() / 1000
    assert mean_ms == pytest.approx(record["metrics"]["mean_ttft_ms"], abs=0.01)
    assert record["warm_load"]["requests"] > 0
    # One chunk is one token at this load.
    assert [f["check"] for f in record["findings"] if f["check"] == "chunks"] == []


def test_the_cache_moves_over_the_backend_of_the_system(pd: Stood) -> None:
    backend = pd.deployment.system.kv_transfer.backend
    for name in ("prefill[0]", "decode[0]"):
        loaded = mapped(pd, name)
        assert f"libplugin_{backend}.so" in loaded
        assert ("libfabric.so" in loaded) == (backend == "LIBFABRIC")


def test_greedy_text_is_that_of_the_decode_instance_alone(pd: Stood) -> None:
    tail = " ".join(["bado", "fami", "gusi", "kove"] * 40)
    prompts = [f"{first} {tail}" for first in ("baba", "bebe", "bibi")]
    completions = pd.deployment.completions
    alone = str(pd.deployment.instances[-1].url)
    expected = [completions.text(alone, prompt, tokens=16) for prompt in prompts]
    assert len(set(expected)) == len(prompts)
    through = [completions.text(pd.deployment.url, prompt, tokens=16) for prompt in prompts]
    assert through == expected


def test_the_key_is_asked_for_and_stands_nowhere(pd: Stood) -> None:
    url, key = str(pd.deployment.instances[0].url), pd.deployment.api_key
    body = {"model": pd.deployment.system.model.path, "prompt": "bado", "max_tokens": 1}
    answer = pd.deployment.client.post(
        f"{url}/v1/completions", json=body, headers={"Authorization": "Bearer wrong"}
    )
    assert answer.status_code == 401
    written = [p for p in pd.store.folder.rglob("*") if p.is_file()]
    assert written
    assert [p for p in written if key.encode() in p.read_bytes()] == []
    argvs = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            argvs.append(" ".join(process.cmdline()))
    assert [argv for argv in argvs if key in argv] == []


@pytest.mark.slow
def test_the_suites_measure_an_endpoint_that_is_up(pd: Stood, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    suites = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *("suites/smoke", "suites/sweep", "-k", "answers or 32-16"),
            *("--topology", "1p1d", "--pdserve-base-url", pd.deployment.url),
            *("--pdserve-runs", runs),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PDSERVE_API_KEY": pd.deployment.api_key,
            "XDG_STATE_HOME": str(tmp_path / "state"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert suites.returncode == 0, suites.stdout
    assert "1p1d       random-32-16-n16-c4" in suites.stdout
    assert "neither the path nor KV transfers are proven" in suites.stdout


def test_a_decode_instance_killed_in_a_cell_is_named(pd: Stood) -> None:
    """The last test on this deployment: it ends it."""
    decode = next(s for s in pd.deployment.servers if s.name == "decode[0]")
    assert decode.process is not None
    pid = decode.process.pid
    assert pid is not None
    long = replace(WORKLOAD, output_len=256, num_prompts=64)
    killer = threading.Timer(8.0, os.kill, (pid, signal.SIGKILL))
    killer.start()
    try:
        with pytest.raises(LaunchError, match=r"decode\[0\] on local1 was ended by signal 9"):
            measure(
                pd.deployment,
                long,
                repeat=0,
                start=0,
                store=pd.store,
                provenance=PROVENANCE,
            )
    finally:
        killer.cancel()


@pytest.mark.parametrize(
    ("topology", "nodes"), [("dp", 2), ("route2", 2)], ids=["dp-2", "route2-2"]
)
@pytest.mark.slow
def test_aggregated_topologies_serve(topology: str, nodes: int, tmp_path: Path) -> None:
    """Data parallelism with a headless rank, and independent groups behind round robin."""
    with stood_up(topology, tmp_path, nodes=nodes) as stood:
        record = run(stood, 0)
        assert record["metrics"]["completed"] == WORKLOAD.num_prompts
        assert "kv_transfers" not in record["metrics"]
        assert all(served["requests"] > 0 for served in record["served"])
