"""The architectures that are understood, as data: how each config.json is read and which defaults stand
behind it.

Defaults are those of the config classes of transformers 5.19.0, which apply where config.json omits a
field; what each model makes of them is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class WindowRule(StrEnum):
    """Which layers have a sliding window when `layer_types` does not say."""

    ALL = "all layers, where sliding_window is set"
    EVERY_NTH_FULL = "all but every n-th layer"
    FROM_LAYER = "layers from max_window_layers on, where use_sliding_window is set"
    NONE = "no layer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How one family's config.json is read.

    `names` maps our field names to the family's own. `per_layer` says whether the engine's model honours
    `layer_types` layer by layer; where it does not, a mixture is refused, as the engine itself refuses it
    or ignores it. `window_switch` names the boolean without which `sliding_window` means nothing.
    `fixed_kv_dtype` marks models whose attention is built without the cache settings (falcon.py).
    """

    latent: bool = False
    defaults: Mapping[str, object] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    reads_head_dim: bool = True
    multi_query: bool = False
    windows: WindowRule = WindowRule.NONE
    nth_full: int = 0
    nth_field: str = "sliding_window_pattern"
    per_layer: bool = True
    window_switch: str | None = None
    rope_scales_context: bool = True
    fixed_kv_dtype: bool = False


_TIED: Final = {"tie_word_embeddings": True}
_QWEN: Final = {"max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28}
_DEEPSEEK_HEADS: Final = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
_DEEPSEEK: Final = Family(latent=True, defaults={"kv_lora_rank": 512, **_DEEPSEEK_HEADS})

FAMILIES: Final[Mapping[str, Family]] = {
    "LlamaForCausalLM": Family(defaults={"max_position_embeddings": 2048}, windows=WindowRule.ALL),
    "MistralForCausalLM": Family(
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
        windows=WindowRule.ALL,
    ),
    "MixtralForCausalLM": Family(
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072},
        windows=WindowRule.ALL,
        per_layer=False,
    ),
    "Qwen2ForCausalLM": Family(
        defaults={"num_key_value_heads": 32, **_QWEN},
        reads_head_dim=False,
        windows=WindowRule.FROM_LAYER,
        per_layer=False,
        window_switch="use_sliding_window",
    ),
    "Qwen3ForCausalLM": Family(
        defaults={"num_key_value_heads": 32, "head_dim": 128, **_QWEN},
        windows=WindowRule.FROM_LAYER,
        per_layer=False,
        window_switch="use_sliding_window",
    ),
    "Qwen3MoeForCausalLM": Family(
        defaults={"num_key_value_heads": 4, "max_position_embeddings": 32768, "sliding_window": 4096},
        windows=WindowRule.ALL,
        per_layer=False,
        window_switch="use_sliding_window",
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
            **_TIED,
        },
        windows=WindowRule.EVERY_NTH_FULL,
        nth_full=2,
        nth_field="",
    ),
    "Gemma3ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
            **_TIED,
        },
        windows=WindowRule.EVERY_NTH_FULL,
        nth_full=6,
        rope_scales_context=False,
    ),
    "PhiForCausalLM": Family(defaults={"max_position_embeddings": 2048}),
    "Phi3ForCausalLM": Family(
        defaults={"max_position_embeddings": 4096, "original_max_position_embeddings": 4096},
        windows=WindowRule.ALL,
    ),
    "GraniteForCausalLM": Family(defaults={"max_position_embeddings": 2048}, windows=WindowRule.ALL),
    "FalconForCausalLM": Family(
        defaults={"max_position_embeddings": 2048, "multi_query": True, **_TIED},
        names={"num_key_value_heads": "num_kv_heads"},
        reads_head_dim=False,
        multi_query=True,
        fixed_kv_dtype=True,
    ),
    "GPTBigCodeForCausalLM": Family(
        defaults={"n_positions": 1024, "multi_query": True, **_TIED},
        names={"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
        reads_head_dim=False,
        multi_query=True,
    ),
    "MiniMaxM2ForCausalLM": Family(defaults={"max_position_embeddings": 196608}),
    "GptOssForCausalLM": Family(
        defaults={
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "sliding_window": 128,
        },
        windows=WindowRule.EVERY_NTH_FULL,
        nth_full=2,
        nth_field="",
    ),
    "DeepseekV2ForCausalLM": _DEEPSEEK,
    "DeepseekV3ForCausalLM": _DEEPSEEK,
}

PLAIN: Final = Family(windows=WindowRule.NONE)
"""What `assumeFullAttention` reads an unknown architecture as."""

LATENT_MODEL_TYPES: Final = frozenset({"deepseek_v2", "deepseek_v3", "kimi_k2"})
"""model_type values for which the engine uses latent attention (vLLM 0.32.0
model_arch_config_convertor.py)."""

NOT_PLANNED: Final[Mapping[str, str]] = {
    "is_encoder_decoder": "encoder-decoder models keep a second cache for the encoder",
    "use_bidirectional_attention": "bidirectional attention keeps no KV cache",
    "dual_chunk_attention_config": "dual chunk attention needs its own backend",
    "index_topk": "the sparse-attention indexer keeps a second cache",
    "num_kv_shared_layers": "layers that share a cache",
    "attention_chunk_size": "chunked local attention",
    "block_configs": "layers of different shapes",
    "compress_ratios": "compressed latent caches",
    "linear_num_value_heads": "linear-attention state",
    "target_layer_count": "draft models are not served on their own",
}
"""Keys whose presence with a true value means a cache this version does not plan; refused by name."""
