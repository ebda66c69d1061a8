"""A deployment: the servers of a topology that are up, and the requests sent to them."""

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
from pytest_pdserve.serving.asking_again import why_not_repeated
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
from pytest_pdserve.serving.stalls import metrics_reader
from pytest_pdserve.serving.stalls import watching_stalls
from pytest_pdserve.serving.streams import Completion
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
    """Servers of a topology that are up, and what is needed to measure them."""

    topology: Topology
    system: System
    """System that they run on, with its model path resolved."""
    url: str
    """Base URL for clients: of the router, or of the only instance."""
    nodes: tuple[str, ...]
    """Nodes in use, head first."""
    servers: tuple[Server, ...]
    """Instances and router; empty for an attached endpoint whose instances were not named."""
    client: httpx.Client
    """HTTP client with the session's API key."""
    allocation: Allocation
    """Nodes of the session; of an attached endpoint, the machine of the client."""
    bench: BenchClient
    """Benchmark client."""
    started: float = 0.0
    """Monotonic time of the start."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Seconds by phase of the start."""
    warm_up: WarmUp = field(default_factory=WarmUp)
    """Warm-up requests sent so far."""
    kv_bytes: dict[int, float] = field(default_factory=dict)
    """Bytes of KV cache by prompt length, where they were measured by :meth:`probe_kv_bytes`."""
    progress: Progress = field(default=lambda _: None)
    """Receives progress messages."""
    shared_start: int | None = None
    """Number of the start of instances shared with other topologies, from 0; None if not shared."""
    transfers: tuple[RunningTransfer, ...] = ()
    """Measured transfers between its pairs, one at a time; empty if that was not measured."""
    why_speed_unproven: str = ""
    """As in :attr:`.observation.Observation.why_speed_unproven`."""
    served_model: str | None = None
    """Name of the model in requests; None for its path."""
    foreign_tokenizer: str | None = None
    """Tokenizer of the client's prompts, if it may not be the model's own; else None."""

    @property
    def api_key(self) -> str:
        """The session's API key; never written anywhere."""
        return self.bench.api_key

    @property
    def instances(self) -> tuple[Server, ...]:
        """Servers with counters of requests: all with a URL except the router."""
        return tuple(s for s in self.servers if s.url is not None and s.role != "router")

    @property
    def attached(self) -> bool:
        """True if the servers were already up: then no warm-up requests are sent."""
        return self.allocation.endpoint is not None

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions that an attached endpoint reports; empty for servers of the session."""
        return endpoint_versions(self.client, self._version_url) if self.attached else {}

    @property
    def vllm_version(self) -> str | None:
        """Version of vLLM that the servers report; None if they do not."""
        return endpoint_versions(self.client, self._version_url).get("vllm")

    @property
    def _version_url(self) -> str:
        """Base URL for ``/version``, which routers do not forward: of an instance, if known."""
        return str(self.instances[0].url) if self.instances else self.url

    @property
    def logs(self) -> ServerLogs:
        """Logs of the servers that the session started."""
        return ServerLogs(servers=self.servers)

    @property
    def completions(self) -> Completions:
        """Sender of single completion requests."""
        model = self.served_model or self.system.model.path
        return Completions(self.client, model, self.system.limits.warmup_s, logs=self.logs)

    def warm_for(self, workload: Workload) -> Mapping[str, float]:
        """Send the warm-up requests that *workload* still needs.

        :returns: totals of all warm-up requests since the start.
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

    def replace_servers(self, other: Deployment) -> None:
        """Refer to the servers of *other* from now on, which replaced these."""
        for item in fields(self):
            setattr(self, item.name, getattr(other, item.name))

    def check_alive(self) -> None:
        """Raise if a server has ended or a node is lost.

        :raises AllocationError: naming the node.
        :raises LaunchError: naming the server.
        """
        self.allocation.check()
        check_alive(self.servers, self.started, time.monotonic())

    def scrape(self) -> dict[str, Counters]:
        """Return the counters of every instance, once they no longer change.

        :raises PathError: if one does not answer.
        """
        return settled(lambda: {s.name: scrape(self.client, str(s.url)) for s in self.instances})

    def check_fits(self, workload: Workload) -> None:
        """Raise if a request of *workload* is longer than the endpoint's ``max_model_len``.

        Also if its batches are larger than the CUDA graphs of servers that the session started.

        :raises ConfigError: with both numbers.
        """
        url = str(self.instances[0].url) if self.instances else self.url
        limit = longest_model_len(self.client, url)
        if limit is not None:
            check_fits(workload, self.system, limit, f"max_model_len at {url}/v1/models")
        if not self.attached:
            check_captured(workload, self.system, self.topology)

    def probe_kv_bytes(self, workload: Workload) -> Mapping[int, float]:
        """Measure the KV cache of *workload*'s prompts if the model's shape is not known.

        :returns: bytes by prompt length, of all that were measured.
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
        """Send a few different prompts one after the other, and return their answers."""
        answers: list[Completion] = []
        for prompt in itertools.islice(prompts(), _CONTROLS):
            try:
                answer = self.completions.stream(
                    self.url, prompt, tokens=_CONTROL_TOKENS, skip_special_tokens=False
                )
            except RefusedError:
                return ControlAnswers(answers=())  # the endpoint has no /v1/completions
            except PathError as error:
                texts = tuple(answer.text for answer in answers)
                return ControlAnswers(answers=texts, fault=str(error))
            answers.append(answer)
        texts = tuple(answer.text for answer in answers)
        return ControlAnswers(answers=texts, recounted=tuple(self._recounted(answers)))

    def ask_again(self, workload: Workload, result: BenchResult) -> RepeatedAnswers | None:
        """Send measured requests again to the same URL, one after the other.

        :returns: None if answers are not known to be greedy.
        """
        if greedy := [request for request in result.kept if request.greedy]:
            return ask_again(greedy, self.url, self.completions)
        return why_not_repeated(result, client_options(workload, self.system), self.bench.kind)

    def _recounted(self, answers: Sequence[Completion]) -> Iterator[tuple[int, int]]:
        """Yield two token counts of each answer of an attached endpoint.

        The first is the ``usage`` of the answer; the second that of its text, sent as a prompt.
        """
        for answer in answers if self.attached else ():
            counted = self.completions.count_tokens(self.url, answer.text)
            if answer.tokens and counted is not None:
                yield answer.tokens, counted

    def scrape_router(self) -> dict[str, float]:
        """Return the router's counters by name; empty if there is none, or it does not answer."""
        urls = [server.metrics_url for server in self.servers if server.metrics_url]
        return scrape_router(self.client, urls[0]) if urls else {}

    def reset_prefix_caches(self) -> bool | None:
        """Empty the prefix cache of every instance, if ``vllm serve`` offers that.

        It does only with ``VLLM_SERVER_DEV_MODE=1``, and not while blocks are in use.

        :returns: whether all are empty now; None if no instance offers it, and for an attached
            endpoint, whose caches are never emptied.
        """
        if self.attached:
            return None
        answers = [reset_prefix_cache(self.client, str(s.url)) for s in self.instances]
        return all(answers) if any(answer is not None for answer in answers) else None

    def watching_stalls(self) -> contextlib.AbstractContextManager[Stalls]:
        """Sample the work of all engines once a second, until the block is left."""
        return watching_stalls(self.instances, metrics_reader(self.client))

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
