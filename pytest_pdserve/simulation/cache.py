"""The prefix cache of a simulated engine, by prompt."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

from pytest_pdserve.simulation.constants import BLOCK


class PrefixCache:
    """The cached tokens of each prompt, evicted least recently used first, from the prompt's end.

    Of two prompts with the same identity, one is a prefix of the other. This is so for prompts that
    ``vllm bench serve`` makes from one seed: its random prompt *i* counts up from the *i*-th random
    number.
    """

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._cached: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()
        self._total = 0

    def hit(self, prompt: Hashable, tokens: int) -> int:
        """Return the tokens of a prompt that need no prefill: whole blocks, not the last token."""
        cached = min(*self._cached.get(prompt, (0, 0)), tokens - 1)
        return max(cached, 0) // BLOCK * BLOCK

    def keep(self, prompt: Hashable, tokens: int, generated: int = 0) -> None:
        """Store a prompt and its generated tokens; the latter only use capacity."""
        old_prompt, old_size = self._cached.pop(prompt, (0, 0))
        size = max(tokens + generated, old_size)
        self._cached[prompt] = max(tokens, old_prompt), size
        self._total += size - old_size
        while self._total > self._capacity:
            oldest, (usable, size) = next(iter(self._cached.items()))
            cut = min(size, math.ceil(self._total - self._capacity))
            self._total -= cut
            if cut == size:
                del self._cached[oldest]
            else:
                self._cached[oldest] = usable, size - cut
