"""Decoders with routed experts, and latent attention.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.decoder import Bias, Mixture, QkNorm, Style, Windows
from tonnage.models.family import Family

MIXTURE: Final[Mapping[str, Family]] = {
    "MixtralForCausalLM": Family(
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "num_local_experts": 8},
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            mixture=Mixture(
                count="num_local_experts", intermediate="intermediate_size", path="block_sparse_moe"
            ),
        ),
    ),
    "Qwen3MoeForCausalLM": Family(
        defaults={
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "num_experts": 128,
            "moe_intermediate_size": 768,
            "decoder_sparse_step": 1,
        },
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            window_switch="use_sliding_window",
            qkv_bias=Bias(fields=("attention_bias",)),
            qk_norm=QkNorm.HEAD,
            mixture=Mixture(count="num_experts", every="decoder_sparse_step", only_dense="mlp_only_layers"),
        ),
    ),
    "MiniMaxM2ForCausalLM": Family(
        defaults={"max_position_embeddings": 196608},
        style=Style(
            qkv_bias=Bias(fields=("attention_bias",)),
            qk_norm=QkNorm.RANK_HEADS,
            mixture=Mixture(
                count="num_local_experts",
                intermediate="intermediate_size",
                path="block_sparse_moe",
                router_element="float32",
                correction_bias="float32",
            ),
        ),
    ),
    "GptOssForCausalLM": Family(
        defaults={
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "sliding_window": 128,
        },
        style=Style(windows=Windows.EVERY_NTH_FULL, nth_full=2, nth_field="", sinks=True),
    ),
}
