"""Decoders of attention and an MLP per layer.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.decoder import Bias, QkNorm, Style, Windows
from tonnage.models.family import Family
from tonnage.models.profile import Trait

_TIED: Final = {"tie_word_embeddings": True}
_QWEN: Final = {"max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28}
_LLAMA_BIAS: Final = Bias(fields=("attention_bias", "bias"))

DENSE: Final[Mapping[str, Family]] = {
    "LlamaForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        style=Style(
            windows=Windows.ALL,
            qkv_bias=_LLAMA_BIAS,
            output_bias=_LLAMA_BIAS,
            mlp_bias=Bias(fields=("mlp_bias",)),
        ),
    ),
    "MistralForCausalLM": Family(
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
        style=Style(windows=Windows.ALL),
    ),
    "Qwen2ForCausalLM": Family(
        defaults={"num_key_value_heads": 32, **_QWEN},
        style=Style(
            reads_head_dim=False,
            windows=Windows.FROM_LAYER,
            per_layer=False,
            window_switch="use_sliding_window",
            qkv_bias=Bias(always=True),
        ),
    ),
    "Qwen3ForCausalLM": Family(
        defaults={"num_key_value_heads": 32, "head_dim": 128, **_QWEN},
        style=Style(
            windows=Windows.FROM_LAYER,
            per_layer=False,
            window_switch="use_sliding_window",
            qkv_bias=Bias(fields=("attention_bias",)),
            qk_norm=QkNorm.HEAD,
        ),
    ),
    "GemmaForCausalLM": Family(
        defaults={"num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192, **_TIED},
    ),
    "Gemma2ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            **_TIED,
        },
        style=Style(
            windows=Windows.EVERY_NTH_FULL,
            nth_full=2,
            nth_field="",
            norms=4,
            qkv_bias=Bias(fields=("attention_bias",)),
            output_bias=Bias(fields=("attention_bias",)),
            traits=frozenset({Trait.SOFTCAP}),
        ),
    ),
    "Gemma3ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
            **_TIED,
        },
        style=Style(
            windows=Windows.EVERY_NTH_FULL,
            nth_full=6,
            norms=4,
            qkv_bias=Bias(fields=("attention_bias",)),
            output_bias=Bias(fields=("attention_bias",)),
            qk_norm=QkNorm.HEAD,
        ),
        rope_scales_context=False,
    ),
    "GraniteForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        style=Style(
            windows=Windows.ALL,
            qkv_bias=_LLAMA_BIAS,
            output_bias=_LLAMA_BIAS,
            mlp_bias=Bias(fields=("mlp_bias",)),
        ),
    ),
    "Phi3ForCausalLM": Family(
        defaults={"max_position_embeddings": 4096, "original_max_position_embeddings": 4096},
        style=Style(windows=Windows.ALL),
    ),
    "FalconForCausalLM": Family(
        defaults={"max_position_embeddings": 2048, "multi_query": True, **_TIED},
        style=Style(
            names={"num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"},
            reads_head_dim=False,
            multi_query=True,
            gated=False,
            norms=2,
            final_norms=2,
            qkv_bias=Bias(fields=("bias",)),
            output_bias=Bias(fields=("bias",)),
            mlp_bias=Bias(fields=("bias",)),
            traits=frozenset({Trait.FIXED_KV_DTYPE}),
        ),
    ),
}
