"""The load that runs before the first measurement after a start of the servers.

One request per pair warms connections, and not the kernels: on GPUs the first cell after a start
was 42 % slow until a load at the cell's concurrency had gone before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.workload import Workload

OUTPUT_TOKENS = 16
"""Output tokens per request; fewer if the sweep asks for fewer."""
MAX_SHARE = 0.1
"""Largest share of all planned tokens that the load may have."""
LONGER_PER_PAIR = 2
"""Least requests per pair before a cell with longer prompts than any before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmLoad:
    """Requests of one length, all at once."""

    requests: int
    """How many."""
    prompt_tokens: int
    """Of each."""
    output_tokens: int
    """Asked of each."""


def longer_load(load: Workload, *, pairs: int) -> WarmLoad | None:
    """Return what warms servers up for longer prompts than they had; None without lengths.

    As many requests as *load* has at once, at most :data:`MAX_SHARE` of its tokens, and at least
    :data:`LONGER_PER_PAIR` for each pair of engines. On four H200, two per pair left the first run
    of 4,096-token prompts 13 % slow.
    """
    if load.lengths is None:
        return None
    known, (prompt, output) = load.known(), load.lengths
    at_once = min(known.num_prompts, known.max_concurrency or known.num_prompts)
    tokens = min(OUTPUT_TOKENS, output)
    admitted = int(MAX_SHARE * known.num_prompts * (prompt + output)) // (prompt + tokens)
    requests = max(LONGER_PER_PAIR * pairs, min(at_once, admitted))
    return WarmLoad(requests=requests, prompt_tokens=prompt, output_tokens=tokens)


def warm_load(loads: Sequence[Workload], *, least: int) -> WarmLoad | None:
    """Return the load that warms servers up for *loads*; None where no length is known.

    As many requests as the largest concurrency, with the shortest prompt; fewer if they would have
    more than :data:`MAX_SHARE` of the planned tokens.

    :param least: requests in any case: one for each pair of engines.
    """
    sized = [(load, load.lengths) for load in loads if load.lengths is not None]
    known = [(load.known(), lengths) for load, lengths in sized]
    if not known:
        return None
    at_once = max(
        min(load.num_prompts, load.max_concurrency or load.num_prompts) for load, _ in known
    )
    prompt = min(prompt for _, (prompt, _) in known)
    output = min(OUTPUT_TOKENS, *(output for _, (_, output) in known))
    planned = sum(load.num_prompts * sum(lengths) for load, lengths in known)
    admitted = int(MAX_SHARE * planned) // (prompt + output)
    requests = max(least, min(at_once, admitted))
    return WarmLoad(requests=requests, prompt_tokens=prompt, output_tokens=output)
