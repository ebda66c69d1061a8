"""The prefix cache of one engine, by prompt."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

from pytest_pdserve.simulation.constants import BLOCK


class PrefixCache:
    """Tokens kept of each prompt; what was used longest ago goes first, from its end.

    Two prompts of one identity are prefixes of each other, as those that ``vllm bench serve`` makes
    of one seed are: its random prompt *i* counts up from the *i*-th random number.
    """

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()
        self._total = 0

    def hit(self, prompt: Hashable, tokens: int) -> int:
        """Tokens of a prompt that need no prefill: whole blocks, and never the last token."""
        kept = min(*self._kept.get(prompt, (0, 0)), tokens - 1)
        return max(kept, 0) // BLOCK * BLOCK

    def keep(self, prompt: Hashable, tokens: int, generated: int = 0) -> None:
        """Remember a prompt and what was generated after it; the latter takes room only."""
        old_prompt, old_size = self._kept.pop(prompt, (0, 0))
        size = max(tokens + generated, old_size)
        self._kept[prompt] = max(tokens, old_prompt), size
        self._total += size - old_size
        while self._total > self._capacity:
            oldest, (usable, size) = next(iter(self._kept.items()))
            cut = min(size, math.ceil(self._total - self._capacity))
            self._total -= cut
            if cut == size:
                del self._kept[oldest]
            else:
                self._kept[oldest] = usable, size - cut
