"""Models with recurrent state: Mamba, gated delta nets, and mixtures of them with attention.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.family import Family

_TIED: Final = {"tie_word_embeddings": True}
_DELTA_NETS: Final = frozenset({"linear_num_value_heads"})

_MAMBA: Final = {
    "state_size": 16,
    "expand": 2,
    "conv_kernel": 4,
    "use_conv_bias": True,
    "time_step_rank": "auto",
    **_TIED,
}
_MAMBA2_OF_ATTENTION: Final = {
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_head": "auto",
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_chunk_size": 256,
}
_QWEN_NETS: Final = {
    "head_dim": 256,
    "max_position_embeddings": 32768,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}
QWEN3_5: Final[Mapping[str, object]] = {
    "model_type": "qwen3_5_text",
    "intermediate_size": 12288,
    "num_key_value_heads": 4,
    **_QWEN_NETS,
}
"""Defaults of `Qwen3_5TextConfig`."""

QWEN3_5_MOE: Final[Mapping[str, object]] = {
    "model_type": "qwen3_5_moe_text",
    "num_key_value_heads": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts": 256,
    **_QWEN_NETS,
}
"""Defaults of `Qwen3_5MoeTextConfig`."""

HYBRID: Final[Mapping[str, Family]] = {
    "MambaForCausalLM": Family(reader="mamba:read_mamba", defaults=_MAMBA),
    "FalconMambaForCausalLM": Family(reader="mamba:read_mamba", defaults=_MAMBA),
    "Mamba2ForCausalLM": Family(
        reader="mamba:read_mamba2",
        defaults={
            "num_heads": 128,
            "head_dim": 64,
            "state_size": 128,
            "expand": 2,
            "conv_kernel": 4,
            "n_groups": 8,
            "chunk_size": 256,
            "use_conv_bias": True,
        },
    ),
    "JambaForCausalLM": Family(
        reader="jamba:read_jamba",
        defaults={
            "num_key_value_heads": 8,
            "max_position_embeddings": 262144,
            "num_experts": 16,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "attn_layer_period": 8,
            "attn_layer_offset": 4,
            "mamba_d_state": 16,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_dt_rank": "auto",
            "mamba_conv_bias": True,
        },
    ),
    "NemotronHForCausalLM": Family(
        reader="nemotron_h:read_nemotron_h",
        defaults={
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 4096,
            "intermediate_size": 21504,
            "ssm_state_size": 128,
            "mamba_num_heads": 128,
            "mamba_head_dim": 64,
            "n_groups": 8,
            "conv_kernel": 4,
            "use_conv_bias": True,
            "chunk_size": 128,
            "mamba_ssm_cache_dtype": "float32",
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "moe_intermediate_size": 7688,
            "moe_shared_expert_intermediate_size": 7688,
        },
    ),
    "Qwen3NextForCausalLM": Family(
        reader="qwen3_next:read_qwen3_next",
        defaults={
            "intermediate_size": 5632,
            "num_key_value_heads": 2,
            "decoder_sparse_step": 1,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts": 512,
            **_QWEN_NETS,
        },
        plans=_DELTA_NETS,
    ),
    "Qwen3_5ForCausalLM": Family(reader="qwen3_next:read_qwen3_5", defaults=QWEN3_5, plans=_DELTA_NETS),
    "Qwen3_5MoeForCausalLM": Family(
        reader="qwen3_next:read_qwen3_5", defaults=QWEN3_5_MOE, plans=_DELTA_NETS
    ),
    "FalconH1ForCausalLM": Family(
        reader="falcon_h1:read_falcon_h1",
        defaults={
            **_MAMBA2_OF_ATTENTION,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "intermediate_size": 14336,
            "mamba_d_ssm": 1024,
        },
    ),
    "GraniteMoeHybridForCausalLM": Family(
        reader="granite_hybrid:read_granite_hybrid",
        defaults={
            **_MAMBA2_OF_ATTENTION,
            "max_position_embeddings": 2048,
            "intermediate_size": 11008,
            "num_local_experts": 8,
            "shared_intermediate_size": 1024,
        },
    ),
    "Zamba2ForCausalLM": Family(
        reader="zamba2:read_zamba2",
        defaults={
            "num_hidden_layers": 54,
            "max_position_embeddings": 4096,
            "mamba_d_state": 64,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_ngroups": 1,
            "n_mamba_heads": 8,
            "chunk_size": 256,
            "use_conv_bias": True,
            "num_mem_blocks": 1,
            "adapter_rank": 128,
        },
    ),
    "Lfm2ForCausalLM": Family(
        reader="short_conv:read_lfm2",
        defaults={
            "intermediate_size": 12288,
            "num_key_value_heads": 8,
            "max_position_embeddings": 128000,
            "conv_L_cache": 3,
            "block_multiple_of": 256,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": True,
        },
    ),
    "Lfm2MoeForCausalLM": Family(
        reader="short_conv:read_lfm2_moe",
        defaults={
            "intermediate_size": 7168,
            "moe_intermediate_size": 1792,
            "num_key_value_heads": 8,
            "max_position_embeddings": 128000,
            "conv_L_cache": 3,
            "num_dense_layers": 2,
            "num_experts": 32,
            "use_expert_bias": True,
        },
    ),
    "KimiLinearForCausalLM": Family(
        reader="kimi_linear:read_kimi_linear",
        defaults={
            "max_position_embeddings": 4096,
            "num_shared_experts": 0,
            "first_k_dense_replace": 0,
            "moe_layer_freq": 1,
        },
    ),
    "OlmoHybridForCausalLM": Family(
        reader="olmo_hybrid:read_olmo_hybrid",
        defaults={
            "intermediate_size": 11008,
            "max_position_embeddings": 65536,
            "linear_conv_kernel_dim": 4,
        },
        plans=_DELTA_NETS,
    ),
}
