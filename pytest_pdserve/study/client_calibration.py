"""Calibration of a system's benchmark client with a server of known timing, on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.hosts.facts import describe_hardware
from pytest_pdserve.backends.local.allocation import LocalAllocation
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.client import Load
from pytest_pdserve.serving.client import Watch
from pytest_pdserve.serving.client import max_in_flight
from pytest_pdserve.serving.clients import bench_client
from pytest_pdserve.serving.model import make_model
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.study.client_offset import ClientOffset
from pytest_pdserve.study.client_offset import TimedLoad
from pytest_pdserve.study.client_offset import measure_offsets
from pytest_pdserve.study.client_offset import timed_server
from pytest_pdserve.values.client_offsets import ClientOffsets
from pytest_pdserve.values.client_offsets import OffsetAt
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload

_TIMES = ("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "mean_tpot_ms")
_LIMIT_S = 300.0
"""Timeout of one load, which takes two seconds and the start of the client."""


STREAMS = (1, 64, 256, 1024)
"""Numbers of concurrent requests that every client is measured with."""


def default_streams(system: System) -> tuple[int, ...]:
    """Return :data:`STREAMS` and the concurrencies of the system's own cells."""
    return tuple(sorted({*STREAMS, *map(max_in_flight, system.sweep.workloads())}))


def measure_client(system: System, streams: Sequence[int], *, progress: Progress) -> ClientOffsets:
    """Return the offsets of the client of *system* at each number of streams.

    The client runs on this machine, as a session on it would start it; each number is measured once
    after a load whose result is discarded.

    :raises ConfigError: if the system has no client, or runs it in a container.
    :raises ClientError: if it fails.
    """
    _check(system)
    system = with_model_path(system)
    make_model(system)
    with tempfile.TemporaryDirectory(prefix="pdserve-client-") as name:
        folder = Path(name)
        one = replace(system, cluster=replace(system.cluster, nodes=1))
        allocation = LocalAllocation(one, folder=folder / "local", progress=progress)
        try:
            with (
                timed_server(folder) as server,
                bench_client(system, allocation, folder / "client") as bench,
            ):
                progress(f"client {bench.kind} against a {server.kind} server of known timing")
                client = _SessionClient(
                    bench=bench, system=system, folder=folder, progress=progress
                )
                numbers = (min(streams), *streams)
                offsets = measure_offsets(client, server, streams=numbers)[1:]
                version = bench.version
        finally:
            allocation.release()
    return ClientOffsets(
        client=backend_of(system).client_kind(system),
        version=version,
        measured_on=datetime.now(UTC).date().isoformat(),
        machine=describe_hardware(),
        rows=tuple(OffsetAt(streams=o.streams, off_ms=_off_ms(o)) for o in offsets),
    )


def _check(system: System) -> None:
    """Raise ConfigError if the system's client cannot be started on this machine."""
    if system.figures is not None or backend_of(system).deployer is not None:
        raise ConfigError(
            f"system {system.name!r} starts no benchmark client; name one that does with --system"
        )
    if system.container.contained:
        raise ConfigError(
            f"system {system.name!r} runs its client in a container, where it cannot be measured "
            "with a server on this machine; calibrate a system without [container]"
        )


def _off_ms(offset: ClientOffset) -> dict[str, float]:
    """Return the reported minus the true value of each time that the client reports, ms."""
    reported, true = offset.reported, offset.true
    return {name: round(reported[name] - true[name], 3) for name in _TIMES if name in reported}


@dataclass(slots=True, kw_only=True)
class _SessionClient:
    """A session's client, callable as :data:`.client_offset.Client`."""

    bench: BenchClient
    system: System
    folder: Path
    progress: Progress
    loads: int = 0

    def __call__(self, load: TimedLoad) -> Mapping[str, Any]:
        self.loads += 1
        plural = "s" if load.requests > 1 else ""
        self.progress(f"{load.requests:,} request{plural} at once")
        bench_load = Load(
            workload=Workload(
                input_len=load.input_tokens,
                output_len=load.output_tokens,
                num_prompts=load.requests,
            ),
            system=self.system,
            seed=load.seed,
            base_url=load.base_url,
            result=self.folder / f"{self.loads}.bench.json",
        )
        watch = Watch(limit_s=_LIMIT_S, check_servers=lambda: None, timeout_error=_hung)
        result = self.bench.run(bench_load, watch).result
        if result.failed or not result.completed:
            raise ClientError(
                f"client {self.bench.kind}: of {load.requests} requests to the timed server "
                f"{result.completed} were answered and {result.failed} failed"
            )
        return result.raw


def _hung(message: str, log: str) -> ClientError:
    return ClientError(f"{message}; {log}")
