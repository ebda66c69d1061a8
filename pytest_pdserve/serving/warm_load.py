"""Warms a start up before it is measured: straight to the instances, with prompts of its own."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import field
from functools import partial

from pytest_pdserve.plan.warm_load import LONGER_PER_PAIR
from pytest_pdserve.plan.warm_load import OUTPUT_TOKENS
from pytest_pdserve.plan.warm_load import WarmLoad
from pytest_pdserve.plan.warm_load import warm_load
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.serving.warmup import pairs_of
from pytest_pdserve.values.workload import Workload

Way = Callable[[Sequence[int]], object]
"""Answers one prompt on one pair of engines, or one engine."""


@dataclass(slots=True, kw_only=True)
class Warmth:
    """What one start was warmed with so far."""

    longest: int = 0
    """Longest prompt, tokens."""
    sent: int = 0
    """Requests."""
    done: dict[str, float] = field(default_factory=dict)
    """What records say: requests, prompt_tokens and output_tokens of the load, seconds of all; and
    longer_requests, longer_prompt_tokens of what went before longer prompts."""

    def warm_for(
        self,
        workload: Workload,
        others: Sequence[Workload],
        *,
        servers: Sequence[Server],
        completions: Completions,
        vocabulary: int,
    ) -> None:
        """Send what is missing before *workload* is measured.

        :param others: loads that are planned for this start.
        :param vocabulary: tokens of the model.
        :raises PathError: if a request fails.
        """
        ways = [*_ways(servers, completions)]
        load = warm_load([workload, *others])
        if not ways or load is None or workload.lengths is None:
            return
        began = time.monotonic()
        if not self.sent:
            self._send(load, ways, vocabulary)
            self.longest = load.prompt_tokens
            self.done |= {
                "requests": load.requests,
                "prompt_tokens": load.prompt_tokens,
                "output_tokens": OUTPUT_TOKENS,
            }
        if workload.lengths[0] > self.longest:
            self.longest = workload.lengths[0]
            longer = WarmLoad(requests=LONGER_PER_PAIR * len(ways), prompt_tokens=self.longest)
            self._send(longer, ways, vocabulary)
            before = self.done.get("longer_requests", 0)
            self.done |= {
                "longer_requests": before + longer.requests,
                "longer_prompt_tokens": self.longest,
            }
        spent = self.done.get("seconds", 0.0) + time.monotonic() - began
        self.done["seconds"] = round(spent, 3)

    def _send(self, load: WarmLoad, ways: Sequence[Way], vocabulary: int) -> None:
        asked = [
            _prompt(self.sent + n, load.prompt_tokens, vocabulary) for n in range(load.requests)
        ]
        self.sent += load.requests
        with ThreadPoolExecutor(load.requests) as pool:
            answers = [
                pool.submit(way, prompt)
                for way, prompt in zip(itertools.cycle(ways), asked, strict=False)
            ]
            for answer in answers:
                answer.result()


def _ways(servers: Sequence[Server], completions: Completions) -> list[Way]:
    pairs, alone = pairs_of(servers)
    return [
        *(partial(completions.transfer, *pair, tokens=OUTPUT_TOKENS) for pair in pairs),
        *(partial(completions.ask_engine, engine, tokens=OUTPUT_TOKENS) for engine in alone),
    ]


def _prompt(number: int, tokens: int, vocabulary: int) -> list[int]:
    """Token ids that begin like no other prompt; special tokens are at the ends of a vocabulary."""
    source = random.Random(f"warm load {number}")  # noqa: S311 - no secret
    return [source.randrange(vocabulary // 10, vocabulary // 2) for _ in range(tokens)]
