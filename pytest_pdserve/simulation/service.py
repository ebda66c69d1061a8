"""The simulated service of a placed topology: client, router, engines and links."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import simpy

from pytest_pdserve.plan.placement import Instance
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.simulation.cache import PrefixCache
from pytest_pdserve.simulation.constants import BLOCK
from pytest_pdserve.simulation.constants import KV_BYTES_PER_TOKEN
from pytest_pdserve.simulation.constants import Constants
from pytest_pdserve.simulation.constants import check_fitted
from pytest_pdserve.simulation.engine import Engine
from pytest_pdserve.simulation.engine import Job
from pytest_pdserve.simulation.engine import Request
from pytest_pdserve.simulation.engine import Segment
from pytest_pdserve.simulation.engine import Unit
from pytest_pdserve.simulation.options import EngineLimits
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.roles import AGGREGATED
from pytest_pdserve.values.roles import DECODE
from pytest_pdserve.values.roles import PREFILL


@dataclass(slots=True)
class Queue:
    """A queue that serves jobs in sequence, first come, first served."""

    free_at: float = 0.0
    """When all jobs so far are done, s."""

    def serve(self, now: float, seconds: float) -> float:
        """Add a job now, and return when it will be done, s."""
        self.free_at = max(self.free_at, now) + seconds
        return self.free_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The events and counters of one run."""

    requests: tuple[Request, ...]
    """In the order of the client's list."""
    began: float
    """When the first request was sent, without noise, s."""
    segments: tuple[tuple[Segment, ...], ...]
    """Steps of each lock-step unit."""
    served: tuple[ServedCounts, ...]
    """Counters of each instance that answers requests."""

    @property
    def duration_s(self) -> float:
        """From the first request sent to the last token, s."""
        return max(r.last for r in self.requests) - self.began


@dataclass(slots=True, kw_only=True)
class Caches:
    """Prefix caches of a deployment's engines, which are kept between runs."""

    engines: dict[str, PrefixCache] = field(default_factory=dict)
    """Cache by instance and rank."""

    def of(self, name: str, capacity: float) -> PrefixCache:
        """Return the cache of an engine; create it if needed."""
        return self.engines.setdefault(name, PrefixCache(capacity))


class Service:
    """The simulation of one run of requests on a placement."""

    def __init__(
        self,
        placement: Placement,
        constants: Constants,
        *,
        seed: int,
        caches: Caches | None = None,
        node_factors: Mapping[str, float] | None = None,
        limits: Mapping[str, EngineLimits] | None = None,
    ) -> None:
        check_fitted(placement)
        self._env = simpy.Environment()
        self._placement = placement
        self._constants = constants
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._caches = caches or Caches()
        self._factors, self._limits = node_factors or {}, limits or {}
        self._units: list[Unit] = []
        self._heads: list[Instance] = []
        self._links: list[Queue] = []
        self._transfers: list[tuple[int, int, float]] = []
        for head, engines in self._deployments():
            is_prefill = head.role.name == PREFILL
            unit = Unit(
                self._env,
                len(self._units),
                engines,
                constants,
                prefilled=self._transfer if is_prefill else self._begin,
                completed=self._ignore if is_prefill else self._complete,
            )
            self._units.append(unit)
            self._heads.append(head)
            self._links.append(Queue())
        self._transfers = [(0, 0, 0.0)] * len(self._units)
        self._dispatch = Queue()
        self._turn = 0
        self._engine_turns = [0] * len(self._units)
        self._free = 0
        self._waiting: deque[Request] = deque()

    def _deployments(self) -> list[tuple[Instance, list[Engine]]]:
        deployments: list[tuple[Instance, list[Engine]]] = []
        for instance in self._placement.instances:
            limits = self._limits.get(instance.role.name, EngineLimits())
            engines = [
                Engine(
                    name=instance.name,
                    cache=self._caches.of(f"{instance.name}/{rank}", self._constants.kv_tokens),
                    kv_tokens=self._constants.kv_tokens,
                    factor=self._factors.get(instance.node, 1.0),
                    token_budget=limits.token_budget,
                    max_sequences=limits.max_sequences,
                )
                for rank in range(instance.dp_local)
            ]
            if instance.headless:
                deployments[-1][1].extend(engines)
            else:
                deployments.append((instance, engines))
        return deployments

    def run(self, requests: Sequence[Request], max_concurrency: int | None = None) -> Outcome:
        """Serve *requests*, at most *max_concurrency* at once, to the last token.

        Requests sent at the same time use separate connections, and arrive in random order.
        """
        order = self._random.sample(requests, len(requests))
        self._free = max_concurrency or len(requests)
        self._env.process(self._arrivals(sorted(order, key=lambda r: r.arrival)))
        self._env.run()
        return Outcome(
            requests=tuple(requests),
            began=min(request.start for request in requests),
            segments=tuple(tuple(unit.segments) for unit in self._units),
            served=tuple(map(self._counts, range(len(self._units)))),
        )

    def _arrivals(self, requests: Sequence[Request]) -> Generator[simpy.Event, None, None]:
        for request in requests:
            if request.arrival > self._env.now:
                yield self._env.timeout(request.arrival - self._env.now)
            if self._free:
                self._send(request)
            else:
                self._waiting.append(request)

    def _send(self, request: Request) -> None:
        self._free -= 1
        request.start = self._env.now
        arrived = self._dispatch.serve(request.start, self._constants.dispatch_s)
        unit = self._choose(PREFILL if self._placement.of(PREFILL) else AGGREGATED)
        outputs = 1 if self._placement.of(PREFILL) else request.output_len
        self._units[unit].send(
            self._next_engine(unit), Job(request=request, output_len=outputs), arrived
        )

    def _choose(self, role: str) -> int:
        """Return an instance's unit: in turn, or for PD by a hash, simulated as random."""
        units = [n for n, head in enumerate(self._heads) if head.role.name == role]
        if role != AGGREGATED:
            return self._random.choice(units)
        self._turn += 1
        return units[(self._turn - 1) % len(units)]

    def _next_engine(self, unit: int) -> int:
        self._engine_turns[unit] += 1
        return (self._engine_turns[unit] - 1) % len(self._units[unit].engines)

    def _transfer(self, job: Job, now: float) -> None:
        """Transfer the KV cache of a prefilled prompt to a decode instance."""
        request, constants = job.request, self._constants
        unit = self._choose(DECODE)
        moved = -(-request.input_len // BLOCK) * BLOCK
        dispatched = self._dispatch.serve(now, constants.dispatch_s)
        arrived = self._links[unit].serve(dispatched, constants.transfer_token_s * moved)
        arrived += constants.transfer_s
        count, size, seconds = self._transfers[unit]
        size += moved * KV_BYTES_PER_TOKEN
        self._transfers[unit] = count + 1, size, seconds + arrived - dispatched
        fetched = Job(request=request, output_len=request.output_len, fetched=True)
        self._units[unit].send(self._next_engine(unit), fetched, arrived)

    def _begin(self, job: Job, now: float) -> None:
        if math.isnan(job.request.first):
            job.request.first = now

    def _complete(self, job: Job, now: float) -> None:
        job.request.last = now
        self._free += 1
        if self._waiting:
            self._send(self._waiting.popleft())

    def _ignore(self, job: Job, now: float) -> None:
        """Discard a prefill instance's own token."""

    def _counts(self, number: int) -> ServedCounts:
        head, engines = self._heads[number], self._units[number].engines
        count, size, seconds = self._transfers[number]
        pulls = head.role.name == DECODE
        return ServedCounts(
            name=head.name,
            role=head.role.name,
            requests=sum(e.requests for e in engines),
            prompt_tokens=sum(e.prompt_tokens for e in engines),
            generation_tokens=sum(e.generated for e in engines),
            prefix_cache_hits=sum(e.hits for e in engines),
            preemptions=sum(e.preemptions for e in engines),
            kv_transfers=count if pulls else None,
            kv_bytes=size if pulls else None,
            kv_transfer_s=seconds if pulls else None,
            kv_failed=0 if pulls else None,
            kv_expired=0 if head.role.name == PREFILL else None,
            block_size=BLOCK,
            restarted=False,
        )
