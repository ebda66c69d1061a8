"""Warm servers up before they are measured, with prompts sent directly to the instances."""

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
"""Requests in flight at once; a process can often open at most 1024 files."""
SendPrompt = Callable[..., object]
"""Sends a prompt through a pair of a prefill and a decode engine, or to one engine; has a parameter
``tokens``."""


@dataclass(slots=True, kw_only=True)
class WarmUp:
    """Warm-up requests sent to servers since their start."""

    longest: int = 0
    """Tokens of the longest prompt."""
    sent: int = 0
    """Number of requests."""
    done: dict[str, float] = field(default_factory=dict)
    """Totals, as in :attr:`.Record.warm_load`."""

    def warm_for(
        self,
        workload: Workload,
        others: Sequence[Workload],
        *,
        servers: Sequence[Server],
        completions: Completions,
        vocabulary: int,
    ) -> None:
        """Send the warm-up requests that *workload* still needs.

        :param others: other loads that are planned for this start.
        :param vocabulary: vocabulary size of the model.
        :raises PathError: if a request fails.
        """
        pairs, alone = pairs_of(servers)
        senders: list[SendPrompt] = [
            *(partial(completions.transfer, *pair) for pair in pairs),
            *(partial(completions.ask_engine, engine) for engine in alone),
        ]
        load = warm_load(
            [workload, *(other for other in others if other != workload)], min_requests=len(senders)
        )
        if not senders or load is None or workload.lengths is None:
            return
        began = time.monotonic()
        if not self.done:
            self._send(load, senders, vocabulary)
            self.longest = load.prompt_tokens
            self.done |= asdict(load)
        self._send_longer(workload, senders, vocabulary)
        spent = self.done.get("seconds", 0.0) + time.monotonic() - began
        self.done["seconds"] = round(spent, 3)

    def _send_longer(
        self, workload: Workload, senders: Sequence[SendPrompt], vocabulary: int
    ) -> None:
        """Send a few requests of *workload* if its prompts are longer than any before."""
        load = longer_load(workload, pairs=len(senders))
        if load is None or load.prompt_tokens <= self.longest:
            return
        self._send(load, senders, vocabulary)
        self.longest = load.prompt_tokens
        self.done["longer_requests"] = self.done.get("longer_requests", 0) + load.requests
        self.done["longer_prompt_tokens"] = load.prompt_tokens

    def _send(self, load: WarmLoad, senders: Sequence[SendPrompt], vocabulary: int) -> None:
        numbers = range(self.sent, self.sent + load.requests)
        self.sent += load.requests
        with ThreadPoolExecutor(min(load.requests, MAX_CONNECTIONS)) as pool:
            answers = [
                pool.submit(
                    senders[number % len(senders)],
                    distinct_prompt(f"warm load {number}", load.prompt_tokens, vocabulary),
                    tokens=load.output_tokens,
                )
                for number in numbers
            ]
            for answer in answers:
                answer.result()


def distinct_prompt(name: str, tokens: int, vocabulary: int) -> list[int]:
    """Return random token ids, different for each *name*.

    They are from the middle of the vocabulary, since special tokens are at its ends.
    """
    source = random.Random(name)  # noqa: S311 - no secret
    return [source.randrange(vocabulary // 10, vocabulary // 2) for _ in range(tokens)]
