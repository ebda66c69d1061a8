"""Plan the warm-up load before the first measurement after a start of the servers.

One request per pair sets up connections, but does not warm up kernels: on GPUs, the first cell
after a start was 42 % slower without a warm-up load at the cell's concurrency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.workload import Workload

OUTPUT_TOKENS = 16
"""Output tokens per request; fewer if the sweep has fewer."""
MAX_SHARE = 0.1
"""Largest share of all planned tokens that the warm-up load may have."""
LONGER_PER_PAIR = 2
"""Minimum requests per pair before a cell with longer prompts than any before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmLoad:
    """Warm-up requests of one length, sent all at once."""

    requests: int
    """Number of requests."""
    prompt_tokens: int
    """Prompt length of each."""
    output_tokens: int
    """Output length of each."""


def longer_load(load: Workload, *, pairs: int) -> WarmLoad | None:
    """Return the warm-up load for longer prompts than before; None if lengths are not known.

    It has as many requests as *load* has in flight, at most :data:`MAX_SHARE` of its tokens, and at
    least :data:`LONGER_PER_PAIR` for each pair of engines. On four H200, with only two per pair,
    the first run of 4,096-token prompts was 13 % slower.
    """
    if load.lengths is None:
        return None
    known, (prompt, output) = load.known(), load.lengths
    at_once = min(known.num_prompts, known.max_concurrency or known.num_prompts)
    tokens = min(OUTPUT_TOKENS, output)
    admitted = int(MAX_SHARE * known.num_prompts * (prompt + output)) // (prompt + tokens)
    requests = max(LONGER_PER_PAIR * pairs, min(at_once, admitted))
    return WarmLoad(requests=requests, prompt_tokens=prompt, output_tokens=tokens)


def warm_load(loads: Sequence[Workload], *, min_requests: int) -> WarmLoad | None:
    """Return the warm-up load for *loads*; None if no lengths are known.

    It has as many requests as the largest number in flight, with the shortest prompt; fewer if they
    exceeded :data:`MAX_SHARE` of the planned tokens.

    :param min_requests: minimum, one for each pair of engines.
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
    requests = max(min_requests, min(at_once, admitted))
    return WarmLoad(requests=requests, prompt_tokens=prompt, output_tokens=output)
