"""What of a model decides how many bytes its KV cache has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """The KV cache of one token."""

    bytes_per_token: int
    """Bytes over all layers and all tensor-parallel ranks."""

    def transfer_bytes(self, prompt_tokens: int, block_size: int) -> int:
        """Bytes that move for a prompt: whole blocks of *block_size* tokens."""
        return math.ceil(prompt_tokens / block_size) * block_size * self.bytes_per_token

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dtype: str | None = None) -> KvShape | None:
        """Read a Hugging Face ``config.json``; None if it does not say enough.

        Attention with key and value heads keeps 2 x heads x head size per layer; multi-head latent
        attention (DeepSeek-V2) keeps ``kv_lora_rank + qk_rope_head_dim``, once for all heads.

        :param dtype: type of the cache, where it is not the model's own.
        """
        size = _BYTES.get(dtype or config.get("dtype") or config.get("torch_dtype") or "")
        layers = config.get("num_hidden_layers")
        if size is None or not isinstance(layers, int):
            return None
        if "kv_lora_rank" in config:
            values = config["kv_lora_rank"] + config["qk_rope_head_dim"]
        elif "num_attention_heads" in config and "hidden_size" in config:
            heads = config.get("num_key_value_heads") or config["num_attention_heads"]
            head_dim = (
                config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            )
            values = 2 * heads * head_dim
        else:
            return None
        return cls(bytes_per_token=layers * values * size)
