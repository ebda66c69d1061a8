"""Observation of one run: input of metrics and sanity checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

from pytest_pdserve.values.counters import release_of
from pytest_pdserve.values.fabric import FabricRun
from pytest_pdserve.values.gpus import GpuRun
from pytest_pdserve.values.model import KvShape
from pytest_pdserve.values.record import NodeLoad
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.system import Sanity
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAnswers:
    """Answers to a few different prompts, sent one by one after the run."""

    answers: tuple[str, ...]
    """Texts."""
    fault: str = ""
    """Error of the request that failed; empty if none did."""
    recounted: tuple[tuple[int, int], ...] = ()
    """Two token counts of each text: as generated tokens, and as a prompt; without texts for which
    the server does not report both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedAnswer:
    """A measured request that was sent again after the run, with no other request in flight."""

    index: int
    """Index among the measured requests."""
    measured: str
    """Whole greedy text of the measured request."""
    alone: str
    """First tokens of the repeated request."""
    again: str | None = None
    """First tokens of a second repetition, to see whether the servers repeat themselves; None if
    :attr:`measured` does not differ."""
    gap_nats: float | None = None
    """Gap in nats between the likeliest token and that of :attr:`measured`, where it diverges from
    :attr:`alone`; None if it does not diverge, or the server does not report it."""

    @property
    def differs(self) -> bool:
        """True if the measured text differs from the repeated one."""
        return not _begins(self.measured, self.alone)

    @property
    def repeats(self) -> bool:
        """True if both repetitions are equal; True if there is only one."""
        if self.again is None:
            return True
        return _begins(self.again, self.alone) or _begins(self.alone, self.again)


def _begins(text: str, start: str) -> bool:
    # The last character of an answer may be incomplete.
    return text.startswith(start.rstrip("\ufffd"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedAnswers:
    """A sample of the measured requests, sent again."""

    answers: tuple[RepeatedAnswer, ...] = ()
    """Requests that were answered again."""
    not_kept: str = ""
    """Why no request could be sent again; empty if some could."""
    fault: str = ""
    """Error of the request that failed; empty if none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything that was observed of one run."""

    topology: Topology
    """Topology that served the load."""
    workload: Workload
    """Load."""
    result: BenchResult
    """Result of the client."""
    served: tuple[ServedCounts, ...] = ()
    """Counts of each instance; empty if instances are not known."""
    router: Mapping[str, float] = field(default_factory=dict)
    """Counts of the router by name, without those that are 0."""
    instances: int = 0
    """Number of instances with an HTTP server."""
    kv_shape: KvShape | None = None
    """KV cache of the model; None if it cannot be derived from its configuration."""
    kv_probed: Mapping[int, float] = field(default_factory=dict)
    """Measured bytes of KV cache by prompt length, if :attr:`kv_shape` is None."""
    ranks: int = 1
    """Largest tensor-parallel size of a prefill or decode engine."""
    vocabulary: int | None = None
    """Vocabulary size of the model; None if its configuration cannot be read."""
    foreign_tokenizer: str | None = None
    """Tokenizer of the client's prompts, if it may not be the model's own; else None."""
    earlier_requests: float = 0.0
    """Requests that the prefilling instances had served since their caches were last emptied."""
    options: Mapping[str, str] | None = None
    """Further options of the client; None for the workload's."""
    controls: ControlAnswers | None = None
    """Control prompts after the run; None if not sent."""
    repeated: RepeatedAnswers | None = None
    """Measured requests that were sent again; None if answers are not greedy."""
    extra_expected: int = 0
    """Requests that the client sends in addition to the load's, with the first prompt: warm-ups and
    the readiness request."""
    vllm_version: str | None = None
    """Version of the servers' vLLM; None if not known."""
    sanity: Sanity = field(default_factory=Sanity)
    """Limits above which a run is invalid."""
    client_cpu: float | None = None
    """Cores that the client used while it measured; None if not known."""
    client_node: NodeLoad | None = None
    """Load of the client's node; None if not known."""
    fabric: tuple[FabricRun, ...] = ()
    """RDMA interfaces of the nodes; empty without any."""
    gpus: tuple[GpuRun, ...] = ()
    """GPUs of the instances; empty if not sampled."""
    why_speed_unproven: str = ""
    """Why it is not proven that KV caches move as fast as the system requires; empty if that is
    proven, or not required."""
    client_offset_ms: Mapping[str, float] = field(default_factory=dict)
    """As in :attr:`.record.Record.client_offset_ms`."""

    @property
    def client_options(self) -> Mapping[str, str]:
        """Further options of the client, as far as known."""
        options = self.workload.options
        own = options if isinstance(options, Mapping) else {}
        return own if self.options is None else self.options

    @property
    def num_requests(self) -> int:
        """Number of requests of the load; if not known, those that completed or failed."""
        prompts, result = self.workload.num_prompts, self.result
        if isinstance(prompts, int):
            return prompts
        return (result.completed or 0) + (result.failed or 0)

    @property
    def extra_sent(self) -> int:
        """Requests that the client sent in addition to the load's, with the first prompt.

        One more than :attr:`extra_expected` if its version is unknown and the prefilling instances
        counted one more: before vLLM 0.14, the client always sends a readiness request.
        """
        if release_of(self.vllm_version) is not None:
            return self.extra_expected
        prefilling = [role for role in ROLES if role not in kv_pullers()]
        counted = self.total("requests", *prefilling)
        return self.extra_expected + (counted == self.num_requests + self.extra_expected + 1)

    @property
    def kv_predicted(self) -> int | None:
        """Expected bytes of all prompts' KV caches; None if shape or block size is unknown."""
        blocks = {counts.block_size for counts in self.of(*kv_pullers())}
        size = blocks.pop() if len(blocks) == 1 else None
        lens = self.result.input_lens
        if self.kv_shape is None or size is None or not lens:
            return None
        sent = (*lens, *lens[:1] * self.extra_sent)
        return sum(self.kv_shape.transfer_bytes(length, size) for length in sent)

    @property
    def kv_cached(self) -> int | None:
        """Bytes of prefix-cache hits on decode instances; None if not known."""
        hits = self.total("prefix_cache_hits", *kv_pullers())
        if self.kv_shape is None or hits is None:
            return None
        return int(hits) * self.kv_shape.bytes_per_token

    def of(self, *roles: str) -> tuple[ServedCounts, ...]:
        """Return the counts of instances with one of *roles*."""
        return tuple(counts for counts in self.served if counts.role in roles)

    def total(self, count: str, *roles: str) -> float | None:
        """Return the sum of one field of :class:`ServedCounts` over instances that have it.

        :param roles: roles of the instances; all if none is given.
        :returns: None if no instance has it.
        """
        served = self.of(*roles) if roles else self.served
        values = [value for c in served if (value := getattr(c, count)) is not None]
        return sum(values) if values else None
