"""Check that pairs of a running deployment move KV caches as fast as the system requires."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.findings import unproven
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.transfer import TransferBackend

RUNNING_SHARE = 0.5
"""Share of the required GB/s that a running pair must reach. The requirement is for NIXL alone;
vLLM counts until it notices the end of a transfer, which it checks once per step. On four H200,
0.53 of NIXL's own rate was left for 512 tokens (docs/transfer.md)."""
_ONLY_COPIES = frozenset({"tcp", "self", "cuda_copy", "gdr_copy"})
"""Transports of UCX with which two processes can only use TCP."""


def slow_pairs(
    figures: Sequence[RunningTransfer], floor_gb_s: float, *, source: str
) -> dict[tuple[str, str], str]:
    """Return a sentence for each pair of instances that is too slow with its longest prompt.

    :param floor_gb_s: rate that NIXL alone must reach; :data:`RUNNING_SHARE` of it is required.
    :param source: setting that requires it, e.g. ``[transfer] floor_gb_s``.
    """
    least = RUNNING_SHARE * floor_gb_s
    return {
        figure.instances: f"{figure_text(figure)}, expected at least {least:.3g} GB/s (half of "
        f"{floor_gb_s:.3g}: {source}); {tcp_text(figure.backend, figure.provider)}"
        for figure in longest(figures)
        if figure.gb_s < least
    }


def check_transfer_speed(run: Observation) -> Iterator[Finding]:
    """Report that the required rate of KV transfers is not proven for the running instances."""
    if run.why_speed_unproven:
        yield unproven("transfer_speed", run.why_speed_unproven)


def longest(figures: Sequence[RunningTransfer]) -> tuple[RunningTransfer, ...]:
    """Return the figure of each pair with its longest prompt."""
    by_pair: dict[tuple[str, str], RunningTransfer] = {}
    for figure in figures:
        longest_so_far = by_pair.setdefault(figure.instances, figure)
        if figure.prompt_tokens > longest_so_far.prompt_tokens:
            by_pair[figure.instances] = figure
    return tuple(by_pair.values())


def faster(
    first: Sequence[RunningTransfer], second: Sequence[RunningTransfer]
) -> tuple[RunningTransfer, ...]:
    """Return the faster of two measurements of each pair and prompt length of *first*.

    A disturbance slows one measurement; a slow pair is slow in both.
    """
    again = {(figure.instances, figure.prompt_tokens): figure for figure in second}
    return tuple(
        min(
            figure,
            again.get((figure.instances, figure.prompt_tokens), figure),
            key=lambda measured: measured.ms,
        )
        for figure in first
    )


def figure_text(figure: RunningTransfer) -> str:
    """Return one figure for a message."""
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
    """Return advice on TCP as the possible transport of a slow pair."""
    name, _, value = provider.partition("=")
    if backend == "UCX" and value and not value.startswith("^"):
        allowed = {word.strip() for word in value.split(",")}
        if "tcp" in allowed and allowed <= _ONLY_COPIES:
            return f"{provider} leaves only TCP: name a faster transport in {name}, or remove it"
    if backend == "LIBFABRIC" and value.split(";")[0] == "tcp":
        return f"{provider} is libfabric's TCP: name a faster provider"
    setting = 'UCX_PROTO_INFO = "y"' if backend == "UCX" else 'FI_LOG_LEVEL = "info"'
    return (
        f"NIXL may have fallen back to TCP: with {setting} in [pd_env] instances log the transport "
        "that they use"
    )
