"""Decoders with routed experts, and latent attention.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.decoder import Bias, Mixture, QkNorm, Style, Windows
from tonnage.models.family import Family

_DEEPSEEK: Final = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
DEEPSEEK_V3: Final = {
    "n_routed_experts": 256,
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
    **_DEEPSEEK,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "max_position_embeddings": 4096,
}
LLAMA4: Final = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "attention_chunk_size": 8192,
    "no_rope_layer_interval": 4,
    "interleave_moe_layer_step": 1,
    "num_local_experts": 16,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
}
"""Defaults of transformers 5.19.0 `Llama4TextConfig`."""

_INDEXED: Final = frozenset({"index_topk"})

_GRANITE_MOE: Final = {"num_local_experts": 8, "max_position_embeddings": 2048}
_EXAONE_MOE: Final = Family(
    defaults={
        "num_key_value_heads": 32,
        "num_experts": 64,
        "moe_intermediate_size": 1024,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
        "sliding_window": 4096,
        "max_position_embeddings": 2048,
    },
    style=Style(
        windows=Windows.EVERY_NTH_FULL,
        nth_full=4,
        unplanned=("sliding_windows",),
        qkv_bias=Bias(fields=("attention_bias", "bias")),
        output_bias=Bias(fields=("attention_bias", "bias")),
        mlp_bias=Bias(fields=("mlp_bias",)),
        qk_norm=QkNorm.HEAD,
        mixture=Mixture(
            count="num_experts",
            correction_bias="float32",
            kinds="mlp_layer_types",
            first_dense="first_k_dense_replace",
            shared_count="num_shared_experts",
            shared_path="shared_experts",
        ),
    ),
)

MIXTURE: Final[Mapping[str, Family]] = {
    "MixtralForCausalLM": Family(
        defaults={"num_local_experts": 8, "num_key_value_heads": 8, "max_position_embeddings": 131072},
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            every_stage=True,
            mixture=Mixture(
                count="num_local_experts",
                count_aliases=("num_experts",),
                intermediate="intermediate_size",
                path="block_sparse_moe",
            ),
        ),
    ),
    "Qwen2MoeForCausalLM": Family(
        defaults={
            "num_key_value_heads": 16,
            "max_position_embeddings": 32768,
            "num_experts": 60,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "decoder_sparse_step": 1,
        },
        style=Style(
            reads_head_dim=False,
            every_stage=True,
            qkv_bias=Bias(always=True),
            mixture=Mixture(
                count="num_experts",
                every="decoder_sparse_step",
                only_dense="mlp_only_layers",
                shared_intermediate="shared_expert_intermediate_size",
                lone_gate=True,
                renormalized="norm_topk_prob",
            ),
        ),
    ),
    "Qwen3MoeForCausalLM": Family(
        defaults={
            "num_experts": 128,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "moe_intermediate_size": 768,
            "decoder_sparse_step": 1,
        },
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            window_switch="use_sliding_window",
            every_stage=True,
            qkv_bias=Bias(fields=("attention_bias",)),
            qk_norm=QkNorm.HEAD,
            mixture=Mixture(
                count="num_experts",
                count_aliases=("num_local_experts",),
                router_quantized=True,
                renormalized="norm_topk_prob",
                every="decoder_sparse_step",
                only_dense="mlp_only_layers",
                shared_intermediate="shared_expert_intermediate_size",
                shared_gate=True,
            ),
        ),
    ),
    "OlmoeForCausalLM": Family(
        defaults={"num_experts": 64, "max_position_embeddings": 4096},
        style=Style(
            reads_head_dim=False,
            windows=Windows.ALL,
            per_layer=False,
            every_stage=True,
            own_head=True,
            qk_norm=QkNorm.ALL_HEADS,
            mixture=Mixture(
                count="num_experts",
                count_aliases=("num_local_experts",),
                intermediate="intermediate_size",
                tiled=False,
            ),
        ),
    ),
    "PhiMoEForCausalLM": Family(
        defaults={
            "num_key_value_heads": 8,
            "num_local_experts": 16,
            "max_position_embeddings": 131072,
        },
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            every_stage=True,
            own_head=True,
            norms=4,
            final_norms=2,
            qkv_bias=Bias(always=True),
            output_bias=Bias(always=True),
            head_bias=Bias(always=True),
            mixture=Mixture(
                count="num_local_experts",
                intermediate="intermediate_size",
                path="block_sparse_moe",
                tiled=False,
            ),
        ),
    ),
    "MiniMaxM2ForCausalLM": Family(
        defaults={
            "num_local_experts": 256,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 196608,
        },
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            own_head=True,
            qkv_bias=Bias(fields=("attention_bias",)),
            qk_norm=QkNorm.RANK_HEADS,
            mixture=Mixture(
                count="num_local_experts",
                count_aliases=("num_experts",),
                intermediate="intermediate_size",
                path="mlp",
                router_element="float32",
                correction_bias="float32",
                correction_switch="use_routing_bias",
            ),
        ),
    ),
    "Glm4MoeForCausalLM": Family(
        defaults={
            "n_routed_experts": 128,
            "num_key_value_heads": 8,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "max_position_embeddings": 131072,
        },
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            own_head=True,
            qkv_bias=Bias(fields=("attention_bias",)),
            qk_norm=QkNorm.HEAD,
            qk_norm_switch="use_qk_norm",
            mixture=Mixture(
                count="n_routed_experts",
                count_aliases=("num_local_experts",),
                router_element="float32",
                correction_bias="float32",
                first_dense="first_k_dense_replace",
                shared_count="n_shared_experts",
                shared_path="shared_experts",
            ),
        ),
    ),
    "HYV3ForCausalLM": Family(
        defaults={
            "num_experts": 192,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "num_shared_experts": 1,
            "max_position_embeddings": 131072,
        },
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            every_stage=True,
            qk_norm=QkNorm.HEAD,
            qk_norm_switch="qk_norm",
            mixture=Mixture(
                count="num_experts",
                count_aliases=("num_local_experts",),
                intermediate="expert_hidden_dim",
                router_element="float32",
                correction_bias="float32",
                first_dense="first_k_dense_replace",
                shared_count="num_shared_experts",
                shared_path="shared_mlp",
            ),
        ),
    ),
    "AfmoeForCausalLM": Family(
        defaults={
            "head_dim": 128,
            "num_experts": 64,
            "num_shared_experts": 2,
            "num_dense_layers": 1,
            "sliding_window": 1024,
            "max_position_embeddings": 16384,
        },
        style=Style(
            windows=Windows.EVERY_NTH_FULL,
            nth_full=4,
            nth_field="global_attn_every_n_layers",
            own_head=True,
            norms=4,
            output_gate="gate_proj",
            qk_norm=QkNorm.HEAD,
            mixture=Mixture(
                count="num_experts",
                router_element="float32",
                correction_bias="float32",
                first_dense="num_dense_layers",
                shared_count="num_shared_experts",
                shared_path="shared_experts",
            ),
        ),
    ),
    "Ernie4_5_MoeForCausalLM": Family(
        defaults={
            "moe_num_experts": 64,
            "num_key_value_heads": 4,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": -1,
            "moe_layer_interval": 1,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
        },
        reader="ernie_moe:read_ernie_moe",
    ),
    "ExaoneMoeForCausalLM": _EXAONE_MOE,
    "ExaoneMoEForCausalLM": _EXAONE_MOE,
    "GraniteMoeForCausalLM": Family(defaults=_GRANITE_MOE, reader="granite_moe:read_granite_moe"),
    "GraniteMoeSharedForCausalLM": Family(defaults=_GRANITE_MOE, reader="granite_moe:read_granite_moe"),
    "GraniteMoeSWAForCausalLM": Family(
        defaults={**_GRANITE_MOE, "sliding_window": 128}, reader="granite_moe:read_granite_moe_windows"
    ),
    "DbrxForCausalLM": Family(defaults={"max_seq_len": 2048}, reader="dbrx:read_dbrx"),
    "Cohere2MoeForCausalLM": Family(
        defaults={
            "head_dim": 128,
            "num_experts": 8,
            "num_shared_experts": 0,
            "first_k_dense_replace": 0,
            "prefix_dense_sliding_window_pattern": 1,
            "sliding_window_pattern": 4,
            "sliding_window": 4096,
            "max_position_embeddings": 8192,
        },
        reader="cohere2_moe:read_cohere2_moe",
    ),
    "Step3p5ForCausalLM": Family(
        defaults={
            "num_attention_groups": 8,
            "moe_num_experts": 16,
            "moe_top_k": 4,
            "max_seq_len": 4096,
        },
        reader="step:read_step3p5",
    ),
    "DeepseekV2ForCausalLM": Family(
        defaults={
            "n_routed_experts": 64,
            "moe_intermediate_size": 1407,
            **_DEEPSEEK,
            "n_shared_experts": 2,
            "first_k_dense_replace": 0,
            "max_position_embeddings": 2048,
        },
        reader="latent:read_deepseek",
        plans=_INDEXED,
    ),
    "DeepseekV3ForCausalLM": Family(
        defaults=DEEPSEEK_V3,
        reader="latent:read_deepseek",
        plans=_INDEXED,
    ),
    "DeepseekV32ForCausalLM": Family(
        defaults=DEEPSEEK_V3,
        reader="latent:read_deepseek",
        plans=_INDEXED,
    ),
    "GlmMoeDsaForCausalLM": Family(
        defaults={
            "n_routed_experts": 256,
            "moe_intermediate_size": 2048,
            "intermediate_size": 12288,
            "kv_lora_rank": 512,
            "q_lora_rank": 2048,
            "qk_nope_head_dim": 192,
            "qk_rope_head_dim": 64,
            "v_head_dim": 256,
            "n_shared_experts": 1,
            "first_k_dense_replace": 3,
            "index_topk": 2048,
            "index_head_dim": 128,
            "index_n_heads": 32,
            "max_position_embeddings": 202752,
        },
        reader="latent:read_deepseek",
        plans=_INDEXED,
    ),
    "DeepseekV4ForCausalLM": Family(
        defaults={"max_position_embeddings": 1048576},
        reader="deepseek_v4:read_deepseek_v4",
        plans=frozenset({"index_topk", "compress_ratios"}),
    ),
    "Llama4ForCausalLM": Family(
        defaults=LLAMA4,
        reader="llama4:read_llama4",
        plans=frozenset({"attention_chunk_size"}),
    ),
    "MistralLarge3ForCausalLM": Family(
        defaults=DEEPSEEK_V3,
        reader="latent:read_deepseek",
        plans=_INDEXED,
    ),
    "Glm4MoeLiteForCausalLM": Family(
        defaults={
            "n_routed_experts": 64,
            "moe_intermediate_size": 1536,
            "intermediate_size": 10240,
            "kv_lora_rank": 512,
            "q_lora_rank": 768,
            "qk_nope_head_dim": 192,
            "qk_rope_head_dim": 64,
            "v_head_dim": 256,
            "n_shared_experts": 1,
            "max_position_embeddings": 202752,
        },
        reader="latent:read_glm4_lite",
    ),
    "AXK1ForCausalLM": Family(
        defaults={
            "n_routed_experts": 192,
            "moe_intermediate_size": 2048,
            "intermediate_size": 18432,
            **_DEEPSEEK,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "max_position_embeddings": 32768,
        },
        reader="latent:read_axk1",
    ),
    "LongcatFlashForCausalLM": Family(
        defaults={
            "n_routed_experts": 512,
            "expert_ffn_hidden_size": 2048,
            "ffn_hidden_size": 12288,
            **_DEEPSEEK,
            "model_type": "longcat_flash",
            "zero_expert_num": 256,
            "max_position_embeddings": 131072,
        },
        reader="latent:read_longcat",
    ),
    "MiMoV2FlashForCausalLM": Family(
        defaults={
            "num_attention_heads": 64,
            "num_key_value_heads": 4,
            "head_dim": 192,
            "v_head_dim": 128,
            "n_routed_experts": 256,
            "max_position_embeddings": 131072,
        },
        reader="mimo:read_mimo_v2",
        plans=frozenset({"attention_chunk_size"}),
    ),
    "GptOssForCausalLM": Family(
        defaults={
            "num_key_value_heads": 8,
            "num_local_experts": 128,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "sliding_window": 128,
        },
        reader="gpt_oss:read_gpt_oss",
    ),
}
