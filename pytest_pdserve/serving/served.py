"""What a measurement asks of servers that are up."""

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
    """What a measurement asks of a :class:`~.deployment.Deployment`, which documents each."""

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
    foreign_tokenizer: str | None

    @property
    def progress(self) -> Progress:
        """Told how far a measurement is."""

    @property
    def instances(self) -> Sequence[Server]:
        """Servers whose counters tell the path."""

    @property
    def logs(self) -> ServerLogs:
        """Logs of the servers that the session started."""

    def check_alive(self) -> None:
        """Make sure that no server has ended and no node is lost."""

    def warm_for(self, workload: Workload) -> Mapping[str, float]:
        """Send the warm-up requests that a workload still needs; return all sent so far."""

    def scrape(self) -> Mapping[str, Counters]:
        """Counters of every instance."""

    @property
    def vllm_version(self) -> str | None:
        """Version of the servers' vLLM, as they say themselves."""

    def check_fits(self, workload: Workload) -> None:
        """Refuse a load that is longer than the model takes."""

    def probe_kv_bytes(self, workload: Workload) -> Mapping[int, float]:
        """Bytes of KV cache by prompt length, where the model's shape does not tell them."""

    def ask_controls(self) -> ControlAnswers:
        """Ask a few different prompts, one after the other."""

    def ask_again(self, workload: Workload, result: BenchResult) -> RepeatedAnswers | None:
        """Ask measured requests again, one after the other, where answers are greedy."""

    def scrape_router(self) -> Mapping[str, float]:
        """Counters of the router by name."""

    def reset_prefix_caches(self) -> bool | None:
        """Empty the prefix caches where the servers offer that; tell whether all are empty."""

    def watching_stalls(self) -> contextlib.AbstractContextManager[Stalls]:
        """Look at the engines until the block is left."""
