"""What the simulation knows of the article's machines: fitted constants, and settings of vLLM."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.values.errors import PlacementError

TOKEN_BUDGET = 8192
"""Tokens of a step, prompt and output together: vLLM's ``max_num_batched_tokens`` on an H100."""
MAX_SEQUENCES = 1024
"""Sequences of an engine: vLLM's ``max_num_seqs`` on an H100."""
GRAPH_TOKENS = 512
"""Tokens of the largest CUDA graph that vLLM captures; a larger step runs without one."""
BLOCK = 16
"""Tokens of a KV block."""
KV_BYTES_PER_TOKEN = 31_104
"""DeepSeek-V2-Lite, bfloat16: 27 layers of 512 + 64 values, once for all heads."""
TENSOR_PARALLEL = 8
"""The only size that the article measured, so the only one that the constants stand for."""


FITTED = Path(__file__).with_name("fitted.toml")
"""The constants, as ``benchmarks/fit_simulation.py`` wrote them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Times of the model, seconds; fitted by ``benchmarks/fit_simulation.py``."""

    step_s: float
    """A step, whatever is in it."""
    prefill_token_s: float
    """Each prompt token of a step."""
    prefill_pair_s: float
    """Each pair of a prompt token and one before it: attention."""
    sequence_s: float
    """The first decoding sequence of a step; more add less, as they share experts' weights."""
    sequence_growth: float
    """Exponent: decoding sequences cost their number to this power."""
    context_token_s: float
    """Each token of context that decoding sequences read."""
    eager_s: float
    """A step of more tokens than the largest CUDA graph."""
    sync_s: float
    """A step of two data-parallel engines, in which each waits for the other in every layer."""
    sync_token_s: float
    """Each token of the fuller of two data-parallel engines, exchanged in every layer."""
    sync_growth: float
    """Exponent: both grow with (engines - 1) to this power."""
    dispatch_s: float
    """A request at client, router and API server, one after the other; for PD, each of its two."""
    transfer_s: float
    """A KV transfer, however small."""
    kv_tokens: float
    """Tokens of one engine's KV memory; by its size, 2 million fit beside DeepSeek-V2-Lite."""
    transfer_token_s: float
    """Each prompt token of a KV transfer on the link of its decode node, one after the other."""


@functools.cache
def fitted() -> Constants:
    """The constants that were fitted to the article's figures."""
    return Constants(**tomllib.loads(FITTED.read_text())["constants"])


def check_fitted(placement: Placement) -> None:
    """Make sure that the constants say something of *placement*.

    :raises PlacementError: if an engine has another tensor-parallel size than the article's.
    """
    for instance in placement.instances:
        if instance.tp != TENSOR_PARALLEL:
            raise PlacementError(
                f"topology {placement.topology.id!r} has engines of {instance.tp} GPUs, but the "
                f"simulation was fitted to engines of {TENSOR_PARALLEL}, and knows no other"
            )
