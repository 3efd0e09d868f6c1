"""Decoders of attention and an MLP per layer, and encoders of the same make.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`. Models of
`model_executor/models/transformers` are built from transformers 5.19.0 `models/*/modeling_*.py`, whose
projections that engine fuses and shards as it does in its own models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tonnage.models.decoder import (
    ATTENTION_BIAS,
    LLAMA,
    LLAMA_BIAS,
    MLP_BIAS,
    Bias,
    QkNorm,
    Style,
    Windows,
)
from tonnage.models.family import Family

_TIED: Final = {"tie_word_embeddings": True}
_QWEN: Final = {"max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28}
_SHARING: Final = frozenset({"num_kv_shared_layers"})

_ALWAYS: Final = Bias(always=True)

_NATIVE: Final[Mapping[str, Family]] = {
    "ApertusForCausalLM": Family(
        defaults={"max_position_embeddings": 65536},
        reader="dense:read_apertus",
    ),
    "BloomForCausalLM": Family(
        defaults=_TIED,
        style=Style(
            names={
                "num_hidden_layers": "n_layer",
                "num_attention_heads": "n_head",
                "num_key_value_heads": "",
                "intermediate_size": "",
            },
            windows=Windows.ALL,
            per_layer=False,
            reads_head_dim=False,
            gated=False,
            qkv_bias=_ALWAYS,
            output_bias=_ALWAYS,
            mlp_bias=_ALWAYS,
            first_norms=2,
            norms=4,
            final_norms=2,
            every_stage=True,
            layer_path="transformer.h",
            attention_path="self_attention",
            qkv="query_key_value",
            output="dense",
            inward="dense_h_to_4h",
            outward="dense_4h_to_h",
        ),
    ),
    "ChatGLMModel": Family(
        defaults={"seq_length": 2048, "rmsnorm": True, "post_layer_norm": True, "multi_query_group_num": 1},
        reader="dense:read_chatglm",
    ),
    "CohereForCausalLM": Family(
        defaults={"max_position_embeddings": 8192},
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            qk_norm=QkNorm.RANK_HEADS,
            qk_norm_switch="use_qk_norm",
            norms=1,
            tied=True,
            every_stage=True,
        ),
    ),
    "Cohere2ForCausalLM": Family(
        defaults={"max_position_embeddings": 8192, "sliding_window": 4096},
        reader="dense:read_cohere2",
    ),
    "DeciLMForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        reader="decilm:read_decilm",
        plans=frozenset({"block_configs"}),
    ),
    "Ernie4_5ForCausalLM": Family(
        defaults={"num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131072, **_TIED},
        style=Style(windows=Windows.ALL, qkv_bias=LLAMA.qkv_bias, mlp_bias=MLP_BIAS),
    ),
    "Exaone4ForCausalLM": Family(
        defaults={"num_key_value_heads": 32, "max_position_embeddings": 2048, "sliding_window": 4096},
        style=Style(
            windows=Windows.EVERY_NTH_FULL,
            nth_full=4,
            qkv_bias=LLAMA_BIAS,
            output_bias=LLAMA_BIAS,
            mlp_bias=MLP_BIAS,
            qk_norm=QkNorm.HEAD,
        ),
    ),
    "ExaoneForCausalLM": Family(
        style=Style(
            names={"num_hidden_layers": "num_layers"},
            windows=Windows.ALL,
            per_layer=False,
            qkv_bias=LLAMA_BIAS,
            output_bias=LLAMA_BIAS,
            mlp_bias=MLP_BIAS,
            layer_path="model.h",
            attention_path="attn.attention",
            output="out_proj",
            outward="c_proj",
        ),
    ),
    "FalconForCausalLM": Family(
        defaults={"max_position_embeddings": 2048, "multi_query": True, "parallel_attn": True, **_TIED},
        reader="dense:read_falcon",
    ),
    "GemmaForCausalLM": Family(
        defaults={"num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192, **_TIED},
        style=Style(windows=Windows.ALL, per_layer=False, every_stage=True),
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
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            softcap="attn_logit_softcapping",
            tied=True,
            every_stage=True,
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
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            qk_norm=QkNorm.HEAD,
            every_stage=True,
        ),
        rope_scales_context=False,
    ),
    "Gemma3nForCausalLM": Family(
        defaults={
            "num_key_value_heads": 2,
            "head_dim": 256,
            "max_position_embeddings": 32768,
            "sliding_window": 512,
            "vocab_size_per_layer_input": 262144,
            "hidden_size_per_layer_input": 256,
            "altup_num_inputs": 4,
            "num_kv_shared_layers": 15,
            "laurel_rank": 64,
            **_TIED,
        },
        reader="gemma3n:read_gemma3n",
        rope_scales_context=False,
        plans=_SHARING,
    ),
    "Gemma4ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131072,
            "sliding_window": 512,
            "vocab_size_per_layer_input": 262144,
            "hidden_size_per_layer_input": 256,
            **_TIED,
        },
        reader="gemma4:read_gemma4",
        plans=_SHARING | {"use_bidirectional_attention"},
    ),
    "Glm4ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "attention_bias": True,
        },
        style=Style(windows=Windows.ALL, per_layer=False, qkv_bias=ATTENTION_BIAS, norms=4),
    ),
    "GPT2LMHeadModel": Family(
        defaults={"n_positions": 1024, **_TIED},
        style=Style(
            names={
                "hidden_size": "n_embd",
                "num_hidden_layers": "n_layer",
                "num_attention_heads": "n_head",
                "num_key_value_heads": "",
                "intermediate_size": "n_inner",
            },
            windows=Windows.ALL,
            per_layer=False,
            reads_head_dim=False,
            gated=False,
            qkv_bias=_ALWAYS,
            output_bias=_ALWAYS,
            mlp_bias=_ALWAYS,
            norms=4,
            final_norms=2,
            positions="n_positions",
            every_stage=True,
            layer_path="transformer.h",
            attention_path="attn",
            qkv="c_attn",
            output="c_proj",
            inward="c_fc",
            outward="c_proj",
            unplanned=("add_cross_attention", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
        ),
    ),
    "GPTJForCausalLM": Family(
        defaults={"n_positions": 2048},
        style=Style(
            names={
                "hidden_size": "n_embd",
                "num_hidden_layers": "n_layer",
                "num_attention_heads": "n_head",
                "num_key_value_heads": "",
                "intermediate_size": "n_inner",
            },
            windows=Windows.ALL,
            per_layer=False,
            reads_head_dim=False,
            gated=False,
            mlp_bias=_ALWAYS,
            head_bias=_ALWAYS,
            norms=2,
            final_norms=2,
            every_stage=True,
            layer_path="transformer.h",
            attention_path="attn",
            output="out_proj",
            inward="fc_in",
            outward="fc_out",
            unplanned=("tie_word_embeddings",),
        ),
    ),
    "GraniteForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        reader="dense:read_granite",
    ),
    "GraniteSWAForCausalLM": Family(
        defaults={
            "num_key_value_heads": 4,
            "max_position_embeddings": 8192,
            "sliding_window": 128,
            **_TIED,
        },
        reader="dense:read_granite_swa",
    ),
    "HyperCLOVAXForCausalLM": Family(
        defaults={"max_position_embeddings": 2048, "use_post_norm": True},
        reader="dense:read_hyperclovax",
    ),
    "InternLM2ForCausalLM": Family(
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            reads_head_dim=False,
            every_stage=True,
            attention_path="attention",
            mlp_path="feed_forward",
            qkv="wqkv",
            output="wo",
            outward="w2",
            head="output",
        ),
    ),
    "LlamaForCausalLM": Family(defaults={"max_position_embeddings": 2048}, style=LLAMA),
    "MiMoForCausalLM": Family(
        defaults={"num_key_value_heads": 32, **_QWEN},
        style=Style(
            reads_head_dim=False,
            windows=Windows.FROM_LAYER,
            per_layer=False,
            window_switch="use_sliding_window",
            qkv_bias=_ALWAYS,
            qk_norm=QkNorm.HEAD,
            qk_norm_switch="qk_norm",
        ),
    ),
    "MiniCPMForCausalLM": Family(
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            reads_head_dim=False,
            every_stage=True,
            unplanned=("num_experts",),
        ),
    ),
    "MiniCPM3ForCausalLM": Family(
        defaults={
            "max_position_embeddings": 32768,
            "kv_lora_rank": 256,
            "q_lora_rank": 768,
            "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 32,
            **_TIED,
        },
        reader="minicpm3:read_minicpm3",
    ),
    "Ministral3ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "sliding_window": None,
        },
        style=LLAMA,
    ),
    "MistralForCausalLM": Family(
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
        style=replace(LLAMA, unplanned=("ada_rms_norm_t_cond",)),
    ),
    "NemotronForCausalLM": Family(
        defaults={"max_position_embeddings": 4096},
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            gated=False,
            qkv_bias=LLAMA_BIAS,
            output_bias=LLAMA_BIAS,
            mlp_bias=MLP_BIAS,
            norms=4,
            final_norms=2,
        ),
    ),
    "OPTForCausalLM": Family(
        defaults={
            "max_position_embeddings": 2048,
            "ffn_dim": 3072,
            "do_layer_norm_before": True,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            **_TIED,
        },
        reader="opt:read_opt",
    ),
    "OrionForCausalLM": Family(
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            reads_head_dim=False,
            norms=4,
            final_norms=2,
            every_stage=True,
        ),
    ),
    "Phi3ForCausalLM": Family(
        defaults={
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "sliding_window": None,
        },
        style=LLAMA,
    ),
    "Qwen2ForCausalLM": Family(
        defaults={"num_key_value_heads": 32, **_QWEN},
        style=Style(
            reads_head_dim=False,
            windows=Windows.FROM_LAYER,
            per_layer=False,
            window_switch="use_sliding_window",
            qkv_bias=_ALWAYS,
            qk_norm=QkNorm.HEAD,
            qk_norm_switch="qk_norm",
        ),
    ),
    "Qwen3ForCausalLM": Family(
        defaults={"num_key_value_heads": 32, "head_dim": 128, **_QWEN},
        style=Style(
            windows=Windows.FROM_LAYER,
            per_layer=False,
            window_switch="use_sliding_window",
            qkv_bias=ATTENTION_BIAS,
            qk_norm=QkNorm.HEAD,
        ),
    ),
    "SolarForCausalLM": Family(
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            qkv_bias=LLAMA_BIAS,
            output_bias=LLAMA_BIAS,
            mlp_bias=MLP_BIAS,
        ),
    ),
    "StableLmForCausalLM": Family(
        defaults={"num_key_value_heads": 32, "max_position_embeddings": 4096},
        style=Style(
            windows=Windows.ALL,
            per_layer=False,
            reads_head_dim=False,
            qkv_bias=Bias(fields=("use_qkv_bias",)),
            norms=4,
            final_norms=2,
            every_stage=True,
            unplanned=("qk_layernorm",),
        ),
    ),
}

_FROM_TRANSFORMERS: Final[Mapping[str, Family]] = {
    "ArceeForCausalLM": Family(
        defaults={"max_position_embeddings": 4096},
        style=Style(
            windows=Windows.ALL,
            gated=False,
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            mlp_bias=MLP_BIAS,
        ),
    ),
    "CwmForCausalLM": Family(
        defaults={
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "sliding_window": 8192,
        },
        style=Style(windows=Windows.FIRST_OF_NTH_FULL, nth_full=4, mlp_bias=MLP_BIAS),
    ),
    "GlmForCausalLM": Family(
        defaults={
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "attention_bias": True,
        },
        style=Style(windows=Windows.ALL, qkv_bias=ATTENTION_BIAS, packed_mlp=True),
    ),
    "GPTBigCodeForCausalLM": Family(
        defaults={"n_positions": 1024, "multi_query": True, **_TIED},
        reader="transformers_backend:read_gpt_bigcode",
    ),
    "GPTNeoXForCausalLM": Family(
        defaults={"max_position_embeddings": 2048, "intermediate_size": 24576, "attention_bias": True},
        style=Style(
            names={"num_key_value_heads": ""},
            windows=Windows.ALL,
            gated=False,
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            mlp_bias=_ALWAYS,
            norms=4,
            final_norms=2,
            attention_path="attention",
            qkv="query_key_value",
            packed_qkv=True,
            output="dense",
            inward="dense_h_to_4h",
            outward="dense_4h_to_h",
        ),
    ),
    "HunYuanDenseV1ForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        style=Style(
            windows=Windows.ALL,
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            qk_norm=QkNorm.HEAD,
        ),
    ),
    "Jais2ForCausalLM": Family(
        defaults={"max_position_embeddings": 8192, "attention_bias": True, "mlp_bias": True},
        style=Style(
            windows=Windows.ALL,
            gated=False,
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            mlp_bias=MLP_BIAS,
            norms=4,
            final_norms=2,
        ),
    ),
    "OlmoForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        style=Style(
            windows=Windows.ALL,
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            norms=0,
            final_norms=0,
        ),
    ),
    "Olmo2ForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        style=Style(
            windows=Windows.ALL,
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            qk_norm=QkNorm.ALL_HEADS,
        ),
    ),
    "Olmo3ForCausalLM": Family(
        defaults={"max_position_embeddings": 2048, "sliding_window": 4096},
        style=Style(
            windows=Windows.EVERY_NTH_FULL,
            nth_full=4,
            nth_field="",
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            qk_norm=QkNorm.ALL_HEADS,
        ),
    ),
    "PhiForCausalLM": Family(
        defaults={"max_position_embeddings": 2048},
        style=Style(
            windows=Windows.ALL,
            gated=False,
            qkv_bias=_ALWAYS,
            output_bias=_ALWAYS,
            mlp_bias=_ALWAYS,
            qk_norm=QkNorm.HEAD_BIASED,
            qk_norm_switch="qk_layernorm",
            norms=2,
            final_norms=2,
            output="dense",
            inward="fc1",
            outward="fc2",
        ),
    ),
    "SeedOssForCausalLM": Family(
        defaults={
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 524288,
            "attention_bias": True,
        },
        style=Style(
            windows=Windows.ALL,
            qkv_bias=ATTENTION_BIAS,
            output_bias=Bias(fields=("attention_out_bias",)),
            mlp_bias=MLP_BIAS,
        ),
    ),
    "SmolLM3ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "no_rope_layer_interval": 4,
            **_TIED,
        },
        reader="transformers_backend:read_smollm3",
    ),
    "Starcoder2ForCausalLM": Family(
        defaults={
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "use_bias": True,
            "sliding_window": None,
            **_TIED,
        },
        style=Style(
            windows=Windows.ALL,
            gated=False,
            qkv_bias=Bias(fields=("use_bias",)),
            output_bias=Bias(fields=("use_bias",)),
            mlp_bias=Bias(fields=("use_bias",)),
            norms=4,
            final_norms=2,
            inward="c_fc",
            outward="c_proj",
        ),
    ),
    "VaultGemmaForCausalLM": Family(
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
            qkv_bias=ATTENTION_BIAS,
            output_bias=ATTENTION_BIAS,
            softcap="attn_logit_softcapping",
        ),
    ),
}

_ENCODERS: Final[Mapping[str, Family]] = {
    "BertModel": Family(
        defaults={"max_position_embeddings": 512, "type_vocab_size": 2, "intermediate_size": 3072},
        reader="encoder:read_bert",
    ),
    "RobertaModel": Family(
        defaults={"max_position_embeddings": 512, "type_vocab_size": 2, "intermediate_size": 3072},
        reader="encoder:read_bert",
    ),
    "XLMRobertaModel": Family(
        defaults={"max_position_embeddings": 512, "type_vocab_size": 2, "intermediate_size": 3072},
        reader="encoder:read_bert",
    ),
}

_SAME: Final[Mapping[str, str]] = {
    "ChatGLMForConditionalGeneration": "ChatGLMModel",
    "InternLM3ForCausalLM": "LlamaForCausalLM",
    "IQuestCoderForCausalLM": "LlamaForCausalLM",
    "LLaMAForCausalLM": "LlamaForCausalLM",
    "TeleChat3ForCausalLM": "LlamaForCausalLM",
    "TeleFLMForCausalLM": "LlamaForCausalLM",
}
"""Names by which the engine builds another's model (registry.py; teleflm.py differs in a factor only)."""

_DENSE: Final = {**_NATIVE, **_FROM_TRANSFORMERS, **_ENCODERS}

DENSE: Final[Mapping[str, Family]] = {**_DENSE, **{name: _DENSE[other] for name, other in _SAME.items()}}
