"""Simulated engines with continuous batching and chunked prefill; in lock-step if data-parallel.

All sequences of an engine advance with its steps, and a step takes the same time for each of them.
So consecutive steps with the same sequences are one event, and their durations are an arithmetic
series: one more token of context per sequence and step. The gaps of a request are a slice of its
engine's steps.
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
    """One request with the times of its events."""

    prompt: object
    """Identity of its prompt."""
    input_len: int
    """Tokens of the prompt."""
    output_len: int
    """Tokens to generate."""
    arrival: float = 0.0
    """When it is due to be sent, s."""
    start: float = 0.0
    """When the client sent it, s."""
    first: float = math.nan
    """Time of its first token, s."""
    last: float = math.nan
    """Time of its last token, s."""
    unit: int = -1
    """Number of the lock-step unit that generated its tokens."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """First step and number of steps of its tokens: one pair, and another per preemption."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """The work of one engine for a request."""

    request: Request
    output_len: int
    """Tokens to generate in total."""
    fetched: bool = False
    """True if the KV cache of the prompt was transferred from another instance."""
    length: int = 0
    """Tokens that must be in the KV cache before the next token can be generated."""
    left: int = 0
    """Those of them that still need prefill."""
    outputs: int = 0
    """Tokens that are still to be generated."""
    admitted: bool = False
    """True if KV memory is reserved for it."""

    def __post_init__(self) -> None:
        self.length = self.request.input_len
        self.left = 1 if self.fetched else self.length
        self.outputs = self.output_len


@dataclass(slots=True, kw_only=True, eq=False)
class Engine:
    """One engine with its queue, its batch and its counters."""

    name: str
    """Name of its instance."""
    cache: PrefixCache
    kv_tokens: float
    """Capacity of its KV memory in tokens."""
    factor: float = 1.0
    """Factor of the duration of its steps; above 1 on a slow node."""
    token_budget: int = TOKEN_BUDGET
    """Tokens of a step, prompt and output together: ``--max-num-batched-tokens``."""
    max_sequences: int = MAX_SEQUENCES
    """Sequences at once: ``--max-num-seqs``."""
    inbox: list[tuple[float, int, Job]] = field(default_factory=list)
    """Heap of jobs that have not arrived yet: arrival, tie-break, job."""
    waiting: deque[Job] = field(default_factory=deque)
    """Queue of arrived jobs, first come, first served."""
    finishing: list[tuple[int, int, Job]] = field(default_factory=list)
    """Heap of decoding jobs by the step that makes their last token."""
    prefilled: list[Job] = field(default_factory=list)
    """Jobs whose prompt ends within the present step."""
    context: int = 0
    """Context tokens of all decoding sequences."""
    filling: int = 0
    """Tokens of admitted prompts that are not decoding yet."""
    preemptions: int = 0
    """Number of preemptions."""
    hits: int = 0
    """Prompt tokens from the prefix cache."""
    requests: int = 0
    """Jobs completed."""
    prompt_tokens: int = 0
    """Prompt tokens of completed jobs."""
    generated: int = 0
    """Generated tokens of completed jobs."""

    def receive(self, now: float) -> None:
        """Move jobs that have arrived to the queue."""
        while self.inbox and self.inbox[0][0] <= now + 1e-12:
            job = heapq.heappop(self.inbox)[2]
            self.waiting.append(job)

    @property
    def busy(self) -> bool:
        """True if it has jobs to work on."""
        return bool(self.waiting or self.finishing)

    @property
    def ready(self) -> bool:
        """True if the first waiting job is admitted, or can be."""
        if not self.waiting:
            return False
        decoding, job = len(self.finishing), self.waiting[0]
        if job.admitted or not (decoding or self.prefilled):
            return True
        used = self.context + decoding + self.filling + job.length
        return decoding + len(self.prefilled) < self.max_sequences and used <= self.kv_tokens

    @property
    def free_steps(self) -> int:
        """Number of steps for which KV memory suffices; unlimited for a single sequence."""
        if len(self.finishing) < 2:
            return 1 << 62
        return int((self.kv_tokens - self.context - self.filling) // len(self.finishing))

    def preempt(self, step: int) -> None:
        """Preempt the latest sequences until a step fits in KV memory; they are computed again."""
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
        """Schedule a step: a token per decoding sequence, then prompt tokens within the budget.

        :returns: prompt tokens of the step, and the number of their pairs with an earlier token.
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
        if not job.fetched and job.outputs == job.output_len:
            hit = self.cache.hit(job.request.prompt, job.length)
            self.hits += hit
            job.left -= hit

    def complete_steps(self, step: int, ties: Iterator[int], count: int = 1) -> list[Job]:
        """Generate the tokens of *count* steps, of which *step* is the last.

        :returns: jobs that these steps complete.
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
            self.generated += job.output_len
            if job.output_len > 1:
                self.cache.keep(job.request.prompt, job.request.input_len, job.output_len)
        return complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive steps whose durations are an arithmetic series."""

    begin: float
    """Start of the first step, s."""
    first: float
    """Duration of the first step, s."""
    growth: float
    """Increase of the duration from step to step, s."""
    count: int
    """Number of steps."""


class Unit:
    """Engines that step together: those of a data-parallel deployment, or a single engine."""

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
        self._is_idle = False
        others = len(self.engines) - 1
        waits = others**constants.sync_growth if others else 0.0
        self._sync_s = constants.sync_s * waits
        self._sync_token_s = constants.sync_token_s * waits
        self._process = env.process(self._run())

    def send(self, engine: int, job: Job, arrival: float) -> None:
        """Send *job* to an engine, where it arrives now or later."""
        heapq.heappush(self.engines[engine].inbox, (arrival, next(self._ties), job))
        if self._is_idle:
            self._is_idle = False
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
                yield from self._wait(self._next_arrival - now)
                continue
            for engine in self.engines:
                engine.preempt(self._step)
            if any(engine.ready for engine in self.engines):
                yield from self._mixed_step()
            else:
                yield from self._decode_steps()

    def _wait(self, seconds: float) -> Generator[simpy.Event, None, None]:
        """Wait until *seconds* have passed or a job is sent."""
        self._is_idle = True
        try:
            yield self._env.event() if math.isinf(seconds) else self._env.timeout(seconds)
        except simpy.Interrupt:
            pass
        self._is_idle = False

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
        self._complete_segment(Segment(begin=begin, first=duration, growth=0.0, count=1))

    def _decode_steps(self) -> Generator[simpy.Event, None, None]:
        """Run steps until a sequence ends, a job arrives, or another engine becomes the slowest."""
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
        yield from self._wait(total)
        passed = self._env.now - begin
        if passed < total - 1e-12:
            steps = min(steps, steps_until(passed, first, growth))
            yield self._env.timeout(max(0.0, series_s(steps, first, growth) - passed))
        self._complete_segment(Segment(begin=begin, first=first, growth=growth, count=steps))

    def _series(self, engine: Engine) -> tuple[float, float]:
        """Return the duration of an engine's next decode-only step, and its increase per step."""
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

    def _complete_segment(self, segment: Segment) -> None:
        self.segments.append(segment)
        now = self._env.now
        last = self._step + segment.count - 1
        self._step += segment.count
        for engine in self.engines:
            fresh = engine.prefilled
            complete = engine.complete_steps(last, self._ties, segment.count)
            engine.prefilled = []
            for job in fresh:
                if job.request.unit != self.number:
                    job.request.unit, job.request.spans = self.number, []
                job.request.spans.append((last, job.outputs))
                self._prefilled(job, now)
            for job in complete:
                self._completed(job, now)


def series_s(count: int, first: float, growth: float) -> float:
    """Return the duration of *count* steps: *first* for the first, *growth* more for each next."""
    return count * first + growth * count * (count - 1) / 2


def steps_until(seconds: float, first: float, growth: float) -> int:
    """Return the number of steps, at least one, after which *seconds* have passed."""
    if math.isinf(seconds):
        return 1 << 62
    lead = first - growth / 2  # the root that does not cancel out where growth is small
    estimate = 2 * seconds / (math.sqrt(lead * lead + 2 * growth * seconds) + lead)
    return max(1, math.ceil(estimate - 1e-9))
