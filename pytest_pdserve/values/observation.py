"""All that was seen of one run: what metrics are read from, and what sanity checks."""

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
    """A few different prompts, asked one by one after the run."""

    answers: tuple[str, ...]
    """Their texts."""
    fault: str = ""
    """Why one was not answered, if so."""
    recounted: tuple[tuple[int, int], ...] = ()
    """Of each text: tokens that the server claims to have generated, and those that it counts in
    the text when it is sent back as a prompt; only where it says both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedAnswer:
    """One measured request, asked again after the run, with nothing else in flight."""

    index: int
    """Its place among the measured requests."""
    measured: str
    """The whole greedy text of the measured request."""
    alone: str
    """Its first tokens, asked alone."""
    again: str | None = None
    """The same, asked alone once more: how far the servers agree with themselves; None where
    :attr:`measured` is no other."""
    gap_nats: float | None = None
    """By how much the next words of :attr:`measured`, where it leaves :attr:`alone`, are less
    likely than the likeliest; None if it does not leave it, or the server does not say."""

    @property
    def differs(self) -> bool:
        """Whether the measured text is another than that asked alone."""
        return not _begins(self.measured, self.alone)

    @property
    def repeats(self) -> bool:
        """Whether both texts asked alone are equal, as far as that was asked."""
        if self.again is None:
            return True
        return _begins(self.again, self.alone) or _begins(self.alone, self.again)


def _begins(text: str, start: str) -> bool:
    # The last character of an answer may still lack some of its bytes.
    return text.startswith(start.rstrip("\ufffd"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedAnswers:
    """A sample of the measured requests, asked again."""

    answers: tuple[RepeatedAnswer, ...] = ()
    """Those that were answered again."""
    not_kept: str = ""
    """Why none could be asked again, if so."""
    fault: str = ""
    """Why one was not answered again, if so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that was seen of one run."""

    topology: Topology
    """What served."""
    workload: Workload
    """What was asked."""
    result: BenchResult
    """What the client wrote."""
    served: tuple[ServedCounts, ...] = ()
    """What each instance counted; empty where instances cannot be asked."""
    router: Mapping[str, float] = field(default_factory=dict)
    """What the router counted, by name; what it did not count is absent."""
    instances: int = 0
    """Instances that answer requests, whether or not they could be asked."""
    kv_shape: KvShape | None = None
    """KV cache of the model; None if its configuration cannot be read."""
    kv_probed: Mapping[int, float] = field(default_factory=dict)
    """Bytes that single prompts moved, by length, where the shape does not tell."""
    ranks: int = 1
    """Largest tensor-parallel size of a prefill or decode engine."""
    vocabulary: int | None = None
    """Tokens of the model's vocabulary; None if its configuration cannot be read."""
    foreign_tokenizer: str | None = None
    """Tokenizer of the client's prompts where nothing says that it is the model's own."""
    earlier_requests: float = 0.0
    """Requests that the instances which prefill had served before, since their caches were last
    emptied."""
    options: Mapping[str, str] | None = None
    """Further options that the client got; None takes the workload's."""
    controls: ControlAnswers | None = None
    """What was asked one by one after the run; None if nothing was."""
    repeated: RepeatedAnswers | None = None
    """Measured requests that were asked again; None where answers are not greedy."""
    extra_expected: int = 0
    """Requests that the client sends beside those asked, with the first prompt: warm-ups and the
    readiness request."""
    vllm_version: str | None = None
    """Version of the servers' vLLM; None if it is not known."""
    sanity: Sanity = field(default_factory=Sanity)
    """Limits above which a run is invalid."""
    client_cpu: float | None = None
    """Cores that the client used while it measured; None if not seen."""
    client_node: NodeLoad | None = None
    """How busy the client's node was; None if not seen."""
    fabric: tuple[FabricRun, ...] = ()
    """RDMA interfaces of the nodes; empty where there are none."""
    gpus: tuple[GpuRun, ...] = ()
    """GPUs of the instances; empty where they were not watched."""
    client_offset_ms: Mapping[str, float] = field(default_factory=dict)
    """As :attr:`.record.Record.client_offset_ms`."""

    @property
    def client_options(self) -> Mapping[str, str]:
        """Further options that the client got, as far as they are known."""
        own = self.workload.options
        known = own if isinstance(own, Mapping) else {}
        return known if self.options is None else self.options

    @property
    def asked(self) -> int:
        """Requests asked, or those that the client saw the end of where nothing says it."""
        asked, result = self.workload.num_prompts, self.result
        return asked if isinstance(asked, int) else (result.completed or 0) + (result.failed or 0)

    @property
    def extra_sent(self) -> int:
        """Requests that the client sent beside those asked, with the first prompt.

        One more than :attr:`extra_expected` if its version is unknown and the instances that
        prefill counted just that: before vLLM 0.14 it sends a readiness request by itself.
        """
        if release_of(self.vllm_version) is not None:
            return self.extra_expected
        prefilling = [role for role in ROLES if role not in kv_pullers()]
        counted = self.total("requests", *prefilling)
        return self.extra_expected + (counted == self.asked + self.extra_expected + 1)

    @property
    def kv_predicted(self) -> int | None:
        """Bytes of the KV caches of all prompts, by shape and blocks; None if these are unknown."""
        blocks = {counts.block_size for counts in self.of(*kv_pullers())}
        size = blocks.pop() if len(blocks) == 1 else None
        lens = self.result.input_lens
        if self.kv_shape is None or size is None or not lens:
            return None
        sent = (*lens, *lens[:1] * self.extra_sent)
        return sum(self.kv_shape.transfer_bytes(length, size) for length in sent)

    @property
    def kv_cached(self) -> int | None:
        """Bytes that decode instances had in their own prefix caches; None if not known."""
        hits = self.total("prefix_cache_hits", *kv_pullers())
        if self.kv_shape is None or hits is None:
            return None
        return int(hits) * self.kv_shape.bytes_per_token

    def of(self, *roles: str) -> tuple[ServedCounts, ...]:
        """Return the counts of the instances of *roles*."""
        return tuple(counts for counts in self.served if counts.role in roles)

    def total(self, count: str, *roles: str) -> float | None:
        """Return the sum of one field of :class:`ServedCounts` over the instances that have it.

        :param roles: of the instances; none takes all.
        :returns: None if no instance has it.
        """
        served = self.of(*roles) if roles else self.served
        values = [value for c in served if (value := getattr(c, count)) is not None]
        return sum(values) if values else None
