"""Engines with continuous batching and chunked prefill, in lock-step where they are one deployment.

All sequences of an engine move with its steps, and a step takes as long for each of them. So a run
of steps that nothing enters or leaves is one event, and its gaps an arithmetic series: one more
token of context per sequence and step. The gaps of a request are a slice of its engine's steps.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import simpy

from pytest_pdserve.simulation.cache import PrefixCache
from pytest_pdserve.simulation.constants import GRAPH_TOKENS
from pytest_pdserve.simulation.constants import MAX_SEQUENCES
from pytest_pdserve.simulation.constants import TOKEN_BUDGET
from pytest_pdserve.simulation.constants import Constants


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One request and what became of it."""

    prompt: object
    """Identity of its prompt."""
    input_len: int
    """Tokens of the prompt."""
    output_len: int
    """Tokens asked for."""
    arrival: float = 0.0
    """When the client would send it, s."""
    start: float = 0.0
    """When the client sent it, s."""
    first: float = math.nan
    """Its first token, s."""
    last: float = math.nan
    """Its last token, s."""
    unit: int = -1
    """Lock-step unit that generated its tokens."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """First step and number of steps that made its tokens: one run, and one per preemption."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """What one engine does for a request."""

    request: Request
    """For whom."""
    asked: int
    """Tokens to generate in all."""
    fetched: bool = False
    """Whether the KV cache of the prompt came over a link."""
    length: int = 0
    """Tokens that must be in the KV cache before the next one can be generated."""
    left: int = 0
    """Those of them that still need prefill."""
    outputs: int = 0
    """Tokens still to generate."""
    admitted: bool = False
    """Whether it has its place in KV memory."""

    def __post_init__(self) -> None:
        self.length = self.request.input_len
        self.left = 1 if self.fetched else self.length
        self.outputs = self.asked


@dataclass(slots=True, kw_only=True, eq=False)
class Engine:
    """One engine: its queue, its batch, its counts."""

    name: str
    """Instance that it belongs to."""
    cache: PrefixCache
    """What it remembers of earlier prompts."""
    kv_tokens: float
    """Tokens that its KV memory holds."""
    factor: float = 1.0
    """How much longer its steps take than those of a sound node."""
    token_budget: int = TOKEN_BUDGET
    """Tokens of a step, prompt and output together: ``--max-num-batched-tokens``."""
    max_sequences: int = MAX_SEQUENCES
    """Sequences at once: ``--max-num-seqs``."""
    inbox: list[tuple[float, int, Job]] = field(default_factory=list)
    """Heap of what is on its way: arrival, tie-break, job."""
    waiting: deque[Job] = field(default_factory=deque)
    """First come, first served."""
    finishing: list[tuple[int, int, Job]] = field(default_factory=list)
    """Heap of decoding jobs by the step that makes their last token."""
    prefilled: list[Job] = field(default_factory=list)
    """Jobs whose prompt ends within the present step."""
    context: int = 0
    """Tokens that decoding sequences have behind them."""
    filling: int = 0
    """Tokens of admitted prompts that do not decode yet."""
    preemptions: int = 0
    """How often a sequence lost its place in KV memory."""
    hits: int = 0
    """Prompt tokens from the prefix cache."""
    requests: int = 0
    """Jobs completed."""
    prompt_tokens: int = 0
    """Of completed jobs."""
    generated: int = 0
    """Of completed jobs."""

    def receive(self, now: float) -> None:
        """Let in what has arrived."""
        while self.inbox and self.inbox[0][0] <= now + 1e-12:
            job = heapq.heappop(self.inbox)[2]
            self.waiting.append(job)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do now."""
        return bool(self.waiting or self.finishing)

    @property
    def ready(self) -> bool:
        """Whether the first that waits can have a place, or has one already."""
        if not self.waiting:
            return False
        decoding, job = len(self.finishing), self.waiting[0]
        if job.admitted or not (decoding or self.prefilled):
            return True
        used = self.context + decoding + self.filling + job.length
        return decoding + len(self.prefilled) < self.max_sequences and used <= self.kv_tokens

    @property
    def free_steps(self) -> int:
        """Steps for which KV memory lasts; a lone sequence always has its way."""
        if len(self.finishing) < 2:
            return 1 << 62
        return int((self.kv_tokens - self.context - self.filling) // len(self.finishing))

    def preempt(self, step: int) -> None:
        """Take KV memory from what came last until a step fits; it waits, and is computed anew."""
        while self.free_steps < 1:
            entry = max(self.finishing, key=lambda entry: entry[1])
            self.finishing.remove(entry)
            heapq.heapify(self.finishing)
            job = entry[2]
            remaining = entry[0] - step + 1
            first, count = job.request.spans[-1]
            job.request.spans[-1] = first, count - remaining
            job.length += job.outputs - remaining
            job.left, job.outputs, job.admitted = job.length, remaining, False
            self.context -= job.length
            self.preemptions += 1
            self.waiting.appendleft(job)

    def schedule(self) -> tuple[int, float]:
        """Fill a step: a token per decoding sequence, then prompts while the budget lasts.

        :returns: prompt tokens of the step, and pairs of one of them and a token before it.
        """
        decoding = len(self.finishing)
        budget = self.token_budget - decoding
        prompt_tokens, pairs = 0, 0.0
        while budget > 0 and self.ready:
            job = self.waiting[0]
            if not job.admitted:
                self._admit(job)
            chunk = min(job.left, budget)
            pairs += chunk * (job.length - job.left + chunk / 2)
            job.left -= chunk
            budget -= chunk
            prompt_tokens += chunk
            if job.left:
                break
            self.prefilled.append(self.waiting.popleft())
        return prompt_tokens, pairs

    def _admit(self, job: Job) -> None:
        job.admitted = True
        self.filling += job.length
        if not job.fetched and job.outputs == job.asked:
            hit = self.cache.hit(job.request.prompt, job.length)
            self.hits += hit
            job.left -= hit

    def settle(self, step: int, ties: Iterator[int], count: int = 1) -> list[Job]:
        """Make the tokens of *count* steps that end with number *step*.

        :returns: jobs that are complete.
        """
        self.context += len(self.finishing) * count
        complete = []
        while self.finishing and self.finishing[0][0] <= step:
            job = heapq.heappop(self.finishing)[2]
            self.context -= job.length + job.outputs
            complete.append(job)
        for job in self.prefilled:
            self.cache.keep(job.request.prompt, job.request.input_len)
            self.filling -= job.length
            if job.outputs > 1:
                heapq.heappush(self.finishing, (step + job.outputs - 1, next(ties), job))
                self.context += job.length + 1
            else:
                complete.append(job)
        for job in complete:
            self.requests += 1
            self.prompt_tokens += job.request.input_len
            self.generated += job.asked
            if job.asked > 1:
                self.cache.keep(job.request.prompt, job.request.input_len, job.asked)
        return complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Steps in a row whose durations are an arithmetic series."""

    begin: float
    """Start of the first, s."""
    first: float
    """Duration of the first, s."""
    growth: float
    """How much longer each next one is, s."""
    count: int
    """Steps."""


class Unit:
    """Engines that step together: a data-parallel deployment, or one engine alone."""

    def __init__(
        self,
        env: simpy.Environment,
        number: int,
        engines: Sequence[Engine],
        constants: Constants,
        *,
        prefilled: Callable[[Job, float], None],
        completed: Callable[[Job, float], None],
    ) -> None:
        self.engines = tuple(engines)
        self.number = number
        self.segments: list[Segment] = []
        self._env = env
        self._constants = constants
        self._prefilled = prefilled
        self._completed = completed
        self._ties = itertools.count()
        self._step = 0
        self._resting = False
        others = len(self.engines) - 1
        waits = others**constants.sync_growth if others else 0.0
        self._sync_s = constants.sync_s * waits
        self._sync_token_s = constants.sync_token_s * waits
        self._process = env.process(self._run())

    def send(self, engine: int, job: Job, arrival: float) -> None:
        """Have *job* arrive at an engine, now or later."""
        heapq.heappush(self.engines[engine].inbox, (arrival, next(self._ties), job))
        if self._resting:
            self._resting = False
            self._process.interrupt()

    @property
    def _next_arrival(self) -> float:
        return min((e.inbox[0][0] for e in self.engines if e.inbox), default=math.inf)

    def _run(self) -> Generator[simpy.Event, None, None]:
        env = self._env
        while True:
            now = env.now
            for engine in self.engines:
                engine.receive(now)
            if not any(engine.busy for engine in self.engines):
                yield from self._rest(self._next_arrival - now)
                continue
            for engine in self.engines:
                engine.preempt(self._step)
            if any(engine.ready for engine in self.engines):
                yield from self._mixed_step()
            else:
                yield from self._decode_steps()

    def _rest(self, seconds: float) -> Generator[simpy.Event, None, None]:
        """Wait until *seconds* have passed, or something is sent."""
        self._resting = True
        try:
            yield self._env.event() if math.isinf(seconds) else self._env.timeout(seconds)
        except simpy.Interrupt:
            pass
        self._resting = False

    def _mixed_step(self) -> Generator[simpy.Event, None, None]:
        longest, fullest = 0.0, 0
        for engine in self.engines:
            if engine.busy:
                prompt_tokens, pairs = engine.schedule()
                longest = max(longest, self._engine_s(engine, prompt_tokens, pairs))
                fullest = max(fullest, prompt_tokens + len(engine.finishing))
        duration = longest + self._sync_s + self._sync_token_s * fullest
        begin = self._env.now
        yield self._env.timeout(duration)
        self._settle(Segment(begin=begin, first=duration, growth=0.0, count=1))

    def _decode_steps(self) -> Generator[simpy.Event, None, None]:
        """Step until a sequence ends, something arrives, or another engine becomes the slowest."""
        begin = self._env.now
        steps = min(e.finishing[0][0] for e in self.engines if e.finishing) - self._step + 1
        steps = min(steps, *(engine.free_steps for engine in self.engines))
        series = [self._series(engine) for engine in self.engines if engine.finishing]
        first, growth = max(series)
        for other, faster in series:
            if faster > growth:
                steps = min(steps, 1 + int((first - other) / (faster - growth)))
        fullest = max(len(engine.finishing) for engine in self.engines)
        first += self._sync_s + self._sync_token_s * fullest
        steps = min(steps, steps_until(self._next_arrival - begin, first, growth))
        total = series_s(steps, first, growth)
        yield from self._rest(total)
        passed = self._env.now - begin
        if passed < total - 1e-12:
            steps = min(steps, steps_until(passed, first, growth))
            yield self._env.timeout(max(0.0, series_s(steps, first, growth) - passed))
        self._settle(Segment(begin=begin, first=first, growth=growth, count=steps))

    def _series(self, engine: Engine) -> tuple[float, float]:
        """Duration of its next pure decode step, and by how much each next one is longer."""
        growth = self._constants.context_token_s * len(engine.finishing) * engine.factor
        return self._engine_s(engine, 0, 0.0), growth

    def _engine_s(self, engine: Engine, prompt_tokens: int, pairs: float) -> float:
        constants, decoding = self._constants, len(engine.finishing)
        return engine.factor * (
            constants.step_s
            + constants.prefill_token_s * prompt_tokens
            + constants.prefill_pair_s * pairs
            + constants.sequence_s * math.pow(decoding, constants.sequence_growth)
            + constants.context_token_s * engine.context
            + (constants.eager_s if decoding + prompt_tokens > GRAPH_TOKENS else 0.0)
        )

    def _settle(self, segment: Segment) -> None:
        self.segments.append(segment)
        now = self._env.now
        last = self._step + segment.count - 1
        self._step += segment.count
        for engine in self.engines:
            fresh = engine.prefilled
            complete = engine.settle(last, self._ties, segment.count)
            engine.prefilled = []
            for job in fresh:
                if job.request.unit != self.number:
                    job.request.unit, job.request.spans = self.number, []
                job.request.spans.append((last, job.outputs))
                self._prefilled(job, now)
            for job in complete:
                self._completed(job, now)


def series_s(count: int, first: float, growth: float) -> float:
    """Seconds of *count* steps, the first *first* long, each next one *growth* longer."""
    return count * first + growth * count * (count - 1) / 2


def steps_until(seconds: float, first: float, growth: float) -> int:
    """Steps, at least one, after which *seconds* have passed."""
    if math.isinf(seconds):
        return 1 << 62
    lead = first - growth / 2  # the root that does not cancel out where growth is small
    estimate = 2 * seconds / (math.sqrt(lead * lead + 2 * growth * seconds) + lead)
    return max(1, math.ceil(estimate - 1e-9))
