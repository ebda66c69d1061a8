"""Measured KV transfers between the instances of a running deployment, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.transfer import Count
from pytest_pdserve.values.transfer import GbPerS
from pytest_pdserve.values.transfer import Milliseconds
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import Tokens
from pytest_pdserve.values.transfer import TransferBackend

Name = Annotated[str, Meta(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTransfer:
    """Transfers between one pair of instances with one prompt length, by vLLM's counters.

    They were made one at a time, so that none waited for another.
    """

    reader: Name
    """Decode instance, e.g. ``decode[1]``."""
    source: Name
    """Prefill instance."""
    pair: Pair
    """Their nodes."""
    backend: TransferBackend
    """NIXL backend."""
    provider: Line
    """Variable that selects the transport, e.g. ``UCX_TLS=tcp``; empty for the default."""
    prompt_tokens: Tokens
    """Length of the prompts."""
    transfers: Count
    """Number of transfers; with tensor parallelism, each rank counts."""
    ms: Milliseconds
    """Mean of ``vllm:nixl_xfer_time_seconds``, ms, until vLLM noticed the end, once per step."""
    transfer_bytes: Annotated[float, Meta(gt=0, le=LARGEST)]
    """Mean bytes of a transfer."""
    descriptors: Annotated[float, Meta(ge=0, le=LARGEST)] | None = None
    """Mean descriptors of a transfer, after merging adjacent ones; None if vLLM does not count
    them."""
    posting_ms: Annotated[float, Meta(ge=0, le=LARGEST)] | None = None
    """Mean of ``vllm:nixl_post_time_seconds``, ms; None if vLLM does not count it."""
    bare_gb_s: GbPerS | None = None
    """GB/s between these nodes without a model, with as many bytes; None if not measured, or if
    vLLM moves a different number."""
    bare_descriptors: Count | None = None
    """Descriptors of that transfer, none of them adjacent: the most that vLLM can need."""

    @property
    def gb_s(self) -> float:
        """Speed in 1e9 bytes per second."""
        return self.transfer_bytes / self.ms / 1e6

    @property
    def instances(self) -> tuple[str, str]:
        """Names of decode and prefill instance."""
        return self.reader, self.source
