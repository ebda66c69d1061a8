"""The interface of a deployment that a measurement uses."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Protocol

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.server_logs import ServerLogs
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.values.observation import ControlAnswers
from pytest_pdserve.values.observation import RepeatedAnswers
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload


class Served(Protocol):
    """Part of :class:`~.deployment.Deployment` that a measurement uses; see there."""

    topology: Topology
    system: System
    url: str
    nodes: tuple[str, ...]
    servers: tuple[Server, ...]
    allocation: Allocation
    bench: BenchClient
    timings_s: dict[str, float]
    shared_start: int | None
    transfers: tuple[RunningTransfer, ...]
    why_speed_unproven: str
    foreign_tokenizer: str | None

    @property
    def progress(self) -> Progress:
        """Receives progress messages."""

    @property
    def instances(self) -> Sequence[Server]:
        """Servers with counters of requests."""

    @property
    def logs(self) -> ServerLogs:
        """Logs of the servers that the session started."""

    def check_alive(self) -> None:
        """Raise if a server has ended or a node is lost."""

    def warm_for(self, workload: Workload) -> Mapping[str, float]:
        """Send the warm-up requests that a workload still needs; return totals of all sent."""

    def scrape(self) -> Mapping[str, Counters]:
        """Return the counters of every instance."""

    @property
    def vllm_version(self) -> str | None:
        """Version of vLLM that the servers report."""

    def check_fits(self, workload: Workload) -> None:
        """Raise if a request of *workload* is longer than the model accepts."""

    def probe_kv_bytes(self, workload: Workload) -> Mapping[int, float]:
        """Measure the KV cache of *workload*'s prompts if the model's shape is not known."""

    def ask_controls(self) -> ControlAnswers:
        """Send a few different prompts one after the other, and return their answers."""

    def ask_again(self, workload: Workload, result: BenchResult) -> RepeatedAnswers | None:
        """Send measured requests again, one after the other, if answers are greedy."""

    def scrape_router(self) -> Mapping[str, float]:
        """Return the counters of the router by name."""

    def reset_prefix_caches(self) -> bool | None:
        """Empty the prefix caches if the servers offer that; return whether all are empty."""

    def watching_stalls(self) -> contextlib.AbstractContextManager[Stalls]:
        """Sample the work of all engines until the block is left."""
