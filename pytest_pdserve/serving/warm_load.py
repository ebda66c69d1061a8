"""Warms servers up before they are measured: straight to the instances, with its own prompts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from functools import partial

from pytest_pdserve.plan.warm_load import WarmLoad
from pytest_pdserve.plan.warm_load import longer_load
from pytest_pdserve.plan.warm_load import warm_load
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.serving.warmup import pairs_of
from pytest_pdserve.values.workload import Workload

MAX_CONNECTIONS = 256
"""Requests in flight at once; a process may often open no more than 1024 files."""
SendPrompt = Callable[..., object]
"""Sends a prompt through a pair of a prefill and a decode engine, or to one engine; takes
``tokens``."""


@dataclass(slots=True, kw_only=True)
class WarmUp:
    """What servers were sent since their start to warm them up."""

    longest: int = 0
    """Longest prompt, tokens."""
    sent: int = 0
    """Requests."""
    done: dict[str, float] = field(default_factory=dict)
    """As :attr:`.Record.warm_load` has it."""

    def warm_for(
        self,
        workload: Workload,
        others: Sequence[Workload],
        *,
        servers: Sequence[Server],
        completions: Completions,
        vocabulary: int,
    ) -> None:
        """Send the requests that are still missing before *workload* is measured.

        :param others: loads that are planned for this start.
        :param vocabulary: tokens of the model.
        :raises PathError: if a request fails.
        """
        pairs, alone = pairs_of(servers)
        ways: list[SendPrompt] = [
            *(partial(completions.transfer, *pair) for pair in pairs),
            *(partial(completions.ask_engine, engine) for engine in alone),
        ]
        load = warm_load(
            [workload, *(each for each in others if each != workload)], least=len(ways)
        )
        if not ways or load is None or workload.lengths is None:
            return
        began = time.monotonic()
        if not self.done:
            self._send(load, ways, vocabulary)
            self.longest = load.prompt_tokens
            self.done |= asdict(load)
        self._send_longer(workload, ways, vocabulary)
        spent = self.done.get("seconds", 0.0) + time.monotonic() - began
        self.done["seconds"] = round(spent, 3)

    def _send_longer(self, workload: Workload, ways: Sequence[SendPrompt], vocabulary: int) -> None:
        """Send a few requests of *workload* if no prompt was as long as its yet."""
        load = longer_load(workload, pairs=len(ways))
        if load is None or load.prompt_tokens <= self.longest:
            return
        self._send(load, ways, vocabulary)
        self.longest = load.prompt_tokens
        self.done["longer_requests"] = self.done.get("longer_requests", 0) + load.requests
        self.done["longer_prompt_tokens"] = load.prompt_tokens

    def _send(self, load: WarmLoad, ways: Sequence[SendPrompt], vocabulary: int) -> None:
        numbers = range(self.sent, self.sent + load.requests)
        self.sent += load.requests
        with ThreadPoolExecutor(min(load.requests, MAX_CONNECTIONS)) as pool:
            answers = [
                pool.submit(
                    ways[number % len(ways)],
                    distinct_prompt(f"warm load {number}", load.prompt_tokens, vocabulary),
                    tokens=load.output_tokens,
                )
                for number in numbers
            ]
            for answer in answers:
                answer.result()


def distinct_prompt(name: str, tokens: int, vocabulary: int) -> list[int]:
    """Token ids that begin like no other prompt; special tokens are at the ends of a vocabulary."""
    source = random.Random(name)  # noqa: S311 - no secret
    return [source.randrange(vocabulary // 10, vocabulary // 2) for _ in range(tokens)]
