"""Whether the pairs of a running deployment move KV caches as fast as the system promises."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.transfer import TransferBackend

RUNNING_SHARE = 0.5
"""Share of the promised GB/s that is asked of a running pair. The promise is one of NIXL alone;
vLLM counts until it has noticed the end of a transfer, which it looks for once a step. On four H200
0.53 of the bare figure was left for 512 tokens (docs/transfer.md)."""
_ONLY_COPIES = frozenset({"tcp", "self", "cuda_copy", "gdr_copy"})
"""Transports of UCX that leave nothing but TCP between two processes."""


def slow_pairs(
    found: Sequence[RunningTransfer], floor_gb_s: float, *, source: str
) -> dict[tuple[str, str], str]:
    """Return the pairs of instances that are too slow with their longest prompt, with a sentence.

    :param floor_gb_s: what NIXL alone must reach; :data:`RUNNING_SHARE` of it is asked.
    :param source: what says so, e.g. ``[transfer] floor_gb_s``.
    """
    least = RUNNING_SHARE * floor_gb_s
    return {
        each.instances: f"{figure_text(each)}, expected at least {least:.3g} GB/s (half of "
        f"{floor_gb_s:.3g}: {source}); {tcp_text(each.backend, each.provider)}"
        for each in longest(found)
        if each.gb_s < least
    }


def longest(found: Sequence[RunningTransfer]) -> tuple[RunningTransfer, ...]:
    """Return the figure of each pair with its longest prompt."""
    by_pair: dict[tuple[str, str], RunningTransfer] = {}
    for each in found:
        known = by_pair.setdefault(each.instances, each)
        if each.prompt_tokens > known.prompt_tokens:
            by_pair[each.instances] = each
    return tuple(by_pair.values())


def faster(
    first: Sequence[RunningTransfer], second: Sequence[RunningTransfer]
) -> tuple[RunningTransfer, ...]:
    """Return *first*, with each figure that *second* has faster in its place.

    A disturbance makes one measurement slow, a slow pair both.
    """
    again = {(each.instances, each.prompt_tokens): each for each in second}
    return tuple(
        min(each, again.get((each.instances, each.prompt_tokens), each), key=lambda one: one.ms)
        for each in first
    )


def figure_text(figure: RunningTransfer) -> str:
    """Return one figure as messages have it."""
    pair, where = figure.pair, figure.provider or "default transports"
    parts = [f"{figure.gb_s:.3g} GB/s"]
    if figure.descriptors is not None:
        parts.append(f"{figure.descriptors:.0f} descriptors")
    if figure.posting_ms is not None:
        parts.append(f"posting {figure.posting_ms:.2f} ms")
    bare = "not measured" if figure.bare_gb_s is None else f"{figure.bare_gb_s:.3g} GB/s"
    return (
        f"{figure.reader} on {pair.reader} <- {figure.source} on {pair.source} by {figure.backend} "
        f"({where}), {figure.prompt_tokens} tokens: {figure.ms:.2f} ms ({', '.join(parts)}; NIXL "
        f"without a model: {bare})"
    )


def tcp_text(backend: TransferBackend, provider: str) -> str:
    """Return what the environment says of TCP as the transport, for a pair that is slow."""
    name, _, value = provider.partition("=")
    if backend == "UCX" and value and not value.startswith("^"):
        allowed = {word.strip() for word in value.split(",")}
        if "tcp" in allowed and allowed <= _ONLY_COPIES:
            return f"{provider} leaves only TCP: name a faster transport in {name}, or remove it"
    if backend == "LIBFABRIC" and value.split(";")[0] == "tcp":
        return f"{provider} is libfabric's TCP: name a faster provider"
    seen = 'UCX_PROTO_INFO = "y"' if backend == "UCX" else 'FI_LOG_LEVEL = "info"'
    return (
        f"NIXL may have fallen back to TCP: {seen} in [pd_env] has the instances log the transport "
        "that they take"
    )
