"""The size of a model's KV cache, from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

_BYTES = {
    "float32": 4,
    "float": 4,
    "float16": 2,
    "half": 2,
    "bfloat16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
"""Bytes per value, by the names of ``--dtype`` and ``--kv-cache-dtype``."""


SMALL_VOCABULARY = 1000
"""Assumed vocabulary size, if the configuration has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """Size and layout of a KV cache."""

    bytes_per_token: int
    """Bytes of one token, over all layers and all tensor-parallel ranks."""
    regions: int = field(default=1, compare=False)
    """Memory regions of a block of one rank: keys and values of each layer, or one latent of each
    layer. NIXL uses a descriptor for each."""
    heads: int | None = field(default=None, compare=False)
    """Key-value heads, which tensor-parallel ranks share out; None for a latent."""

    def parts(self, ranks: int) -> int:
        """Return the number of parts that *ranks* tensor-parallel ranks store a block in.

        Every rank stores a latent as a whole, and at least one head: with fewer heads than ranks,
        several ranks store the same one (``get_num_kv_heads`` in ``vllm/config/model.py``).
        """
        return 1 if self.heads is None else min(self.heads, ranks)

    def transfer_bytes(self, prompt_tokens: int, block_size: int) -> int:
        """Return the bytes moved for a prompt, in whole blocks of *block_size* tokens."""
        return math.ceil(prompt_tokens / block_size) * block_size * self.bytes_per_token

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dtype: str | None = None) -> KvShape | None:
        """Return the KV shape for a Hugging Face ``config.json``; None if it cannot be derived.

        Attention with key and value heads keeps 2 x heads x head size per layer; multi-head latent
        attention (DeepSeek-V2) keeps ``kv_lora_rank + qk_rope_head_dim``, once for all heads. A
        sliding window, layers of several kinds and an additional index (:func:`_plain`) have
        layouts that depend on the engine.

        :param dtype: dtype of the cache, if it is not the model's own.
        """
        text = config.get("text_config")
        config = {**config, **text} if isinstance(text, Mapping) else config
        size = _BYTES.get(str(dtype or config.get("dtype") or config.get("torch_dtype")))
        if not _plain(config):
            return None
        latent, heads = config.get("kv_lora_rank") is not None, None
        try:
            if latent:
                values = config["kv_lora_rank"] + config["qk_rope_head_dim"]
            else:
                queries = config["num_attention_heads"]
                head_dim = config.get("head_dim") or config["hidden_size"] // queries
                heads = config.get("num_key_value_heads") or queries
                values = 2 * heads * head_dim
            per_value = config["num_hidden_layers"] * values
        except (KeyError, TypeError, ZeroDivisionError):
            return None
        if size is None or not isinstance(per_value, int) or per_value <= 0:
            return None
        return cls(
            bytes_per_token=per_value * size,
            regions=config["num_hidden_layers"] * (1 if latent else 2),
            heads=heads,
        )


_OTHER_LAYERS = (
    *("index_topk", "index_head_dim", "index_n_heads"),  # sparse MLA
    *("mamba_d_state", "ssm_cfg", "hybrid_override_pattern", "layers_block_type"),
    *("attn_layer_period", "attn_layer_indices", "full_attention_interval", "linear_attn_config"),
    *("linear_num_key_heads", "linear_num_value_heads", "attention_chunk_size"),
)
"""Keys of models whose layers do not all have the same cache."""


def _plain(config: Mapping[str, Any]) -> bool:
    """Return whether every layer has full attention."""
    window = config.get("sliding_window") and config.get("use_sliding_window", True)
    kinds = config.get("layer_types") or ()
    if window or any(kind != "full_attention" for kind in kinds):
        return False
    return not any(config.get(key) for key in _OTHER_LAYERS)
