"""Constants of the simulation: times fitted to the article's machines, and settings of vLLM."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.values.errors import PlacementError

TOKEN_BUDGET = 8192
"""Tokens of a step, prompt and output together; vLLM's ``max_num_batched_tokens`` on an H100."""
MAX_SEQUENCES = 1024
"""Sequences of an engine; vLLM's ``max_num_seqs`` on an H100."""
GRAPH_TOKENS = 512
"""Tokens of the largest CUDA graph that vLLM captures; a larger step runs without a graph."""
BLOCK = 16
"""Tokens of a KV block."""
KV_BYTES_PER_TOKEN = 31_104
"""DeepSeek-V2-Lite, bfloat16: 27 layers of 512 + 64 values, once for all heads."""
TENSOR_PARALLEL = 8
"""The only tensor-parallel size that the article measured, and that the constants are valid for."""


FITTED = Path(__file__).with_name("fitted.toml")
"""File of the constants, written by ``benchmarks/fit_simulation.py``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Times of the model, seconds; fitted by ``benchmarks/fit_simulation.py``."""

    step_s: float
    """Base time of a step."""
    prefill_token_s: float
    """Time per prompt token of a step."""
    prefill_pair_s: float
    """Time per pair of a prompt token and an earlier token, for attention."""
    sequence_s: float
    """Time of the first decoding sequence of a step; others add less, as they share experts."""
    sequence_growth: float
    """Exponent of the number of decoding sequences."""
    context_token_s: float
    """Time per context token of decoding sequences."""
    eager_s: float
    """Extra time of a step with more tokens than the largest CUDA graph."""
    sync_s: float
    """Extra time of a step of two data-parallel engines, which synchronize in every layer."""
    sync_token_s: float
    """Time per token of the fuller of two data-parallel engines, exchanged in every layer."""
    sync_growth: float
    """Exponent of (engines - 1) in both synchronization times."""
    dispatch_s: float
    """Time of a request in client, router and API server, in sequence; twice for PD."""
    transfer_s: float
    """Base time of a KV transfer."""
    kv_tokens: float
    """Tokens of one engine's KV memory; by its size, DeepSeek-V2-Lite leaves 2 million."""
    transfer_token_s: float
    """Time per prompt token of a KV transfer on the link of its decode node, in sequence."""


@functools.cache
def fitted() -> Constants:
    """Return the constants that were fitted to the article's figures."""
    return Constants(**tomllib.loads(FITTED.read_text())["constants"])


def check_fitted(placement: Placement) -> None:
    """Check that the constants are valid for *placement*.

    :raises PlacementError: if an engine has another tensor-parallel size than the article's.
    """
    for instance in placement.instances:
        if instance.tp != TENSOR_PARALLEL:
            raise PlacementError(
                f"topology {placement.topology.id!r} has engines of {instance.tp} GPUs, but the "
                f"simulation was fitted to engines of {TENSOR_PARALLEL}, and supports no other"
            )
