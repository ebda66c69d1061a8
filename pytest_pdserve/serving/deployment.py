"""A topology that is up: what is asked of its servers while it is measured."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from pathlib import Path

import httpx

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.plan.bench import client_options
from pytest_pdserve.plan.capture import check_captured
from pytest_pdserve.plan.fits import check_fits
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.serving.answers import RefusedError
from pytest_pdserve.serving.asking_again import ask_again
from pytest_pdserve.serving.asking_again import why_not_asked
from pytest_pdserve.serving.client import BenchClient
from pytest_pdserve.serving.kv_probe import probe_bytes
from pytest_pdserve.serving.measure import measure
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import load_vocabulary
from pytest_pdserve.serving.provenance import endpoint_versions
from pytest_pdserve.serving.provenance import longest_model_len
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.readiness import check_alive
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import reset_prefix_cache
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.scrape import scrape_router
from pytest_pdserve.serving.scrape import settled
from pytest_pdserve.serving.server_logs import ServerLogs
from pytest_pdserve.serving.stalls import Stalls
from pytest_pdserve.serving.stalls import asking
from pytest_pdserve.serving.stalls import watching_stalls
from pytest_pdserve.serving.streams import Answer
from pytest_pdserve.serving.warm_load import WarmUp
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.serving.warmup import prompts
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.model import SMALL_VOCABULARY
from pytest_pdserve.values.observation import ControlAnswers
from pytest_pdserve.values.observation import RepeatedAnswers
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

_CONTROLS = 4
_CONTROL_TOKENS = 16


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Servers that are up."""

    topology: Topology
    """What they form."""
    system: System
    """What they run on; model path resolved."""
    url: str
    """Base URL that clients ask: the router, or the one instance."""
    nodes: tuple[str, ...]
    """Nodes in use, head first."""
    servers: tuple[Server, ...]
    """Instances and router; empty for an endpoint that somebody else runs."""
    client: httpx.Client
    """HTTP with the session's API key."""
    allocation: Allocation
    """Nodes that hold the servers, or the client of servers that run already."""
    bench: BenchClient
    """What measures them."""
    started: float = 0.0
    """Monotonic time of the start."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Seconds of stand-up phases."""
    warm_up: WarmUp = field(default_factory=WarmUp)
    """What the servers were sent to warm them up."""
    kv_bytes: dict[int, float] = field(default_factory=dict)
    """Bytes of KV cache by prompt length, as far as they had to be learned."""
    progress: Progress = field(default=lambda _: None)
    """Told how far a measurement is."""
    shared_start: int | None = None
    """Start of its instances that other topologies share too, counted from 0."""
    transfers: tuple[RunningTransfer, ...] = ()
    """What its pairs showed one transfer at a time; empty where that was not measured."""
    served_model: str | None = None
    """Name of the model in requests; None takes its path."""
    foreign_tokenizer: str | None = None
    """Tokenizer of the client's prompts where nothing says that it is the model's own."""

    @property
    def api_key(self) -> str:
        """The session's API key; never written anywhere."""
        return self.bench.api_key

    @property
    def instances(self) -> tuple[Server, ...]:
        """Servers whose counters tell the path: all with a URL but the router."""
        return tuple(s for s in self.servers if s.url is not None and s.role != "router")

    @property
    def attached(self) -> bool:
        """Whether somebody else runs the servers: then only requests to be measured are sent."""
        return self.allocation.endpoint is not None

    @property
    def versions(self) -> Mapping[str, str]:
        """What servers that run already say of their versions; empty where nodes tell."""
        return endpoint_versions(self.client, self._version_url) if self.attached else {}

    @property
    def vllm_version(self) -> str | None:
        """Version of the servers' vLLM, as they say themselves; None if they do not."""
        return endpoint_versions(self.client, self._version_url).get("vllm")

    @property
    def _version_url(self) -> str:
        """Base URL of an instance, as routers do not pass ``/version`` on; else the endpoint's."""
        return str(self.instances[0].url) if self.instances else self.url

    @property
    def logs(self) -> ServerLogs:
        """Logs of the servers, as far as the session started them."""
        return ServerLogs(servers=self.servers)

    @property
    def completions(self) -> Completions:
        """Sends single requests."""
        model = self.served_model or self.system.model.path
        return Completions(self.client, model, self.system.limits.warmup_s, logs=self.logs)

    def warm_for(self, workload: Workload) -> Mapping[str, float]:
        """Send the warm-up requests that *workload* still needs; return all sent since the start.

        :raises PathError: if a request fails.
        """
        if self.attached:
            return {}
        self.warm_up.warm_for(
            workload,
            [point.workload for point in self.system.sweep.points()],
            servers=self.servers,
            completions=self.completions,
            vocabulary=load_vocabulary(self.system.model.path) or SMALL_VOCABULARY,
        )
        return dict(self.warm_up.done)

    def become(self, other: Deployment) -> None:
        """Stand for the servers of *other*, which replaced these."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

    def check_alive(self) -> None:
        """Make sure that no server has ended and no node is lost.

        :raises AllocationError: naming the node.
        :raises LaunchError: naming the server.
        """
        self.allocation.check()
        check_alive(self.servers, self.started, time.monotonic())

    def scrape(self) -> dict[str, Counters]:
        """Counters of every instance, once they stand still.

        :raises PathError: if one does not answer.
        """
        return settled(lambda: {s.name: scrape(self.client, str(s.url)) for s in self.instances})

    def check_fits(self, workload: Workload) -> None:
        """Refuse a load that is longer than the model takes, as far as the endpoint says that.

        And one whose batches are larger than the CUDA graphs of servers that the session started.

        :raises ConfigError: with both numbers.
        """
        url = str(self.instances[0].url) if self.instances else self.url
        limit = longest_model_len(self.client, url)
        if limit is not None:
            check_fits(workload, self.system, limit, f"max_model_len at {url}/v1/models")
        if not self.attached:
            check_captured(workload, self.system, self.topology)

    def probe_kv_bytes(self, workload: Workload) -> Mapping[int, float]:
        """Bytes of KV cache by prompt length, where the model's shape does not tell them.

        :raises PathError: if a request fails.
        """
        shape = load_kv_shape(self.system)
        if self.attached:
            return {}
        if self.topology.disaggregated and shape is None and workload.lengths is not None:
            probe_bytes(
                workload.lengths[0],
                self.kv_bytes,
                servers=self.servers,
                completions=self.completions,
                client=self.client,
                vocabulary=load_vocabulary(self.system.model.path) or SMALL_VOCABULARY,
            )
        return dict(self.kv_bytes)

    def ask_controls(self) -> ControlAnswers:
        """Ask a few different prompts, one after the other, and read their streams to the end."""
        answers: list[Answer] = []
        for prompt in itertools.islice(prompts(), _CONTROLS):
            try:
                answer = self.completions.stream(
                    self.url, prompt, tokens=_CONTROL_TOKENS, skip_special_tokens=False
                )
            except RefusedError:
                return ControlAnswers(answers=())  # it is measured over another path than this
            except PathError as error:
                texts = tuple(each.text for each in answers)
                return ControlAnswers(answers=texts, fault=str(error))
            answers.append(answer)
        texts = tuple(each.text for each in answers)
        return ControlAnswers(answers=texts, recounted=tuple(self._recounted(answers)))

    def ask_again(self, workload: Workload, result: BenchResult) -> RepeatedAnswers | None:
        """Ask measured requests again over the same path, one after the other.

        :returns: None where answers are not known to be greedy.
        """
        if greedy := [request for request in result.kept if request.greedy]:
            return ask_again(greedy, self.url, self.completions)
        return why_not_asked(result, client_options(workload, self.system), self.bench.kind)

    def _recounted(self, answers: Sequence[Answer]) -> Iterator[tuple[int, int]]:
        """Yield the tokens that a server of somebody else claims of each answer, and counts."""
        for answer in answers if self.attached else ():
            counted = self.completions.count_tokens(self.url, answer.text)
            if answer.tokens and counted is not None:
                yield answer.tokens, counted

    def scrape_router(self) -> dict[str, float]:
        """Counters of the router by name; empty where there is none, or it does not answer."""
        urls = [server.metrics_url for server in self.servers if server.metrics_url]
        return scrape_router(self.client, urls[0]) if urls else {}

    def reset_prefix_caches(self) -> bool | None:
        """Empty the prefix cache of every instance, where ``vllm serve`` offers that.

        It does with ``VLLM_SERVER_DEV_MODE=1`` only, and refuses while blocks are in use.

        :returns: whether all are empty now; None if no instance offers it, and of servers that
            somebody else runs: their caches are not ours to empty.
        """
        if self.attached:
            return None
        answers = [reset_prefix_cache(self.client, str(s.url)) for s in self.instances]
        return all(answers) if any(answer is not None for answer in answers) else None

    def watching_stalls(self) -> contextlib.AbstractContextManager[Stalls]:
        """Look at the engines, once a second, until the block is left."""
        return watching_stalls(self.instances, asking(self.client))

    def measure(
        self,
        workload: Workload,
        *,
        repeat: int,
        start: int | None,
        store: RunStore,
        provenance: Provenance,
    ) -> tuple[Record, Path]:
        """Run *workload* once and write its record; see :func:`.measure.measure`."""
        return measure(
            self, workload, repeat=repeat, start=start, store=store, provenance=provenance
        )
