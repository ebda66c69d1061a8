"""The load that runs before the first measurement of a start.

One request per pair warms connections, and not the kernels: on GPUs the first cell after a start
was 42 % slow until a load at the cell's concurrency had gone before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.workload import Workload

OUTPUT_TOKENS = 16
"""Asked of each request."""
LARGEST_SHARE = 0.1
"""Of the tokens of all planned loads, as many at most."""
LONGER_PER_PAIR = 2
"""Requests per pair before a cell with longer prompts than any before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmLoad:
    """Requests of one length, all at once."""

    requests: int
    """How many."""
    prompt_tokens: int
    """Of each."""


def warm_load(loads: Sequence[Workload]) -> WarmLoad | None:
    """Return the load that warms servers up for *loads*; None where no length is known.

    As many requests as the largest concurrency, with the shortest prompt, fewer where that were
    more than :data:`LARGEST_SHARE` of what is planned; at least one.
    """
    known = [load.known() for load in loads if load.lengths is not None]
    sized = [(load, lengths) for load in known if (lengths := load.lengths) is not None]
    if not sized:
        return None
    at_once = max(min(load.num_prompts, load.max_concurrency or load.num_prompts) for load in known)
    shortest = min(prompt for _, (prompt, _) in sized)
    planned = sum(load.num_prompts * sum(lengths) for load, lengths in sized)
    admitted = int(LARGEST_SHARE * planned) // (shortest + OUTPUT_TOKENS)
    return WarmLoad(requests=max(1, min(at_once, admitted)), prompt_tokens=shortest)
