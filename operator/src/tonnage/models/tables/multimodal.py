"""Wrappers of a text model: vision and audio encoders, encoder-decoders.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.family import ABSENT, ANY, Family

_LANGUAGE_MODEL: Final = "language_model."
_TEXT: Final = "text_config"
_IDEFICS_MODEL: Final = "model.text_"
"""So that "model.layers" becomes "model.text_model.layers"."""


_LLAMA_SIZES: Final = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
_TEXT_SIZES: Final = {
    "LlamaForCausalLM": _LLAMA_SIZES,
    "MistralForCausalLM": {**_LLAMA_SIZES, "intermediate_size": 14336},
}
"""Published configs of LLaVA leave out what the config class of their text model says anyway."""

_ANY_TEXT: Final = {
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "granite": "GraniteForCausalLM",
    "llama": "LlamaForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
"""The engine's class for a text model that names none, by its model_type."""

_QWEN2_5_OMNI: Final = Family(
    reader="qwen_audio:read_qwen2_5_omni",
    text="thinker_config.text_config",
    prefix=_LANGUAGE_MODEL,
    texts={ANY: "Qwen2ForCausalLM"},
    defaults={"num_key_value_heads": 4, "tie_word_embeddings": True},
)

MULTIMODAL: Final[Mapping[str, Family]] = {
    "Qwen2VLForConditionalGeneration": Family(
        reader="qwen_vision:read_qwen2_vl",
        text=_TEXT,
        flat=True,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen2ForCausalLM"},
        defaults={"num_key_value_heads": 8, "max_window_layers": 80},
    ),
    "Qwen2_5_VLForConditionalGeneration": Family(
        reader="qwen_vision:read_qwen2_5_vl",
        text=_TEXT,
        flat=True,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen2ForCausalLM"},
        defaults={"num_key_value_heads": 8, "max_window_layers": 80},
    ),
    "Qwen3VLForConditionalGeneration": Family(
        reader="qwen_vision:read_qwen3_vl",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen3ForCausalLM"},
        defaults={"max_position_embeddings": 128000},
    ),
    "Qwen3VLMoeForConditionalGeneration": Family(
        reader="qwen_vision:read_qwen3_vl",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen3MoeForCausalLM"},
        defaults={
            "num_key_value_heads": 16,
            "max_position_embeddings": 128000,
            "num_experts": 60,
            "moe_intermediate_size": 1408,
        },
    ),
    "Qwen3_5ForConditionalGeneration": Family(
        reader="qwen_vision:read_qwen3_5_vl",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen3_5ForCausalLM"},
    ),
    "Qwen3_5MoeForConditionalGeneration": Family(
        reader="qwen_vision:read_qwen3_5_vl",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen3_5MoeForCausalLM"},
    ),
    "PaliGemmaForConditionalGeneration": Family(
        reader="gemma_vision:read_paligemma",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ABSENT: "GemmaForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM"},
        plans=frozenset({"use_bidirectional_attention"}),
    ),
    "Gemma3ForConditionalGeneration": Family(
        reader="gemma_vision:read_gemma3_vision",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Gemma3ForCausalLM"},
        defaults={
            "vocab_size": 262208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
        },
    ),
    "Gemma4ForConditionalGeneration": Family(
        reader="gemma_vision:read_gemma4_multimodal",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Gemma4ForCausalLM"},
    ),
    "Llama4ForConditionalGeneration": Family(
        reader="llama4_vision:read_llama4_vision",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Llama4ForCausalLM"},
    ),
    "KimiVLForConditionalGeneration": Family(
        reader="kimi_vision:read_kimi_vl",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "DeepseekV2ForCausalLM"},
    ),
    "KimiK25ForConditionalGeneration": Family(
        reader="kimi_vision:read_kimi_k25",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "DeepseekV3ForCausalLM"},
    ),
    "WhisperForConditionalGeneration": Family(
        reader="whisper:read_whisper",
        defaults={
            "vocab_size": 51865,
            "num_mel_bins": 80,
            "d_model": 384,
            "encoder_layers": 4,
            "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_layers": 4,
            "decoder_attention_heads": 6,
            "decoder_ffn_dim": 1536,
            "max_source_positions": 1500,
            "max_target_positions": 448,
        },
        plans=frozenset({"is_encoder_decoder"}),
    ),
    "LlavaForConditionalGeneration": Family(
        reader="llava:read_llava",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ABSENT: "LlamaForCausalLM", **_ANY_TEXT},
        text_defaults=_TEXT_SIZES,
    ),
    "LlavaNextForConditionalGeneration": Family(
        reader="llava:read_llava_next",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ABSENT: "LlamaForCausalLM", **_ANY_TEXT},
        text_defaults=_TEXT_SIZES,
    ),
    "LlavaOnevisionForConditionalGeneration": Family(
        reader="llava:read_llava_onevision",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={
            ABSENT: "Qwen2ForCausalLM",
            **{kind: name for kind, name in _ANY_TEXT.items() if kind != "granite"},
        },
        text_defaults=_TEXT_SIZES,
    ),
    "Mistral3ForConditionalGeneration": Family(
        reader="llava:read_mistral3",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ABSENT: "MistralForCausalLM", **_ANY_TEXT},
        text_defaults=_TEXT_SIZES,
    ),
    "InternVLForConditionalGeneration": Family(
        reader="internvl:read_internvl",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ABSENT: "Qwen2ForCausalLM", **_ANY_TEXT},
        text_defaults=_TEXT_SIZES,
    ),
    "Idefics3ForConditionalGeneration": Family(
        reader="idefics:read_idefics3",
        text=_TEXT,
        prefix=_IDEFICS_MODEL,
        texts={ABSENT: "LlamaForCausalLM", "llama": "LlamaForCausalLM"},
        text_defaults=_TEXT_SIZES,
    ),
    "SmolVLMForConditionalGeneration": Family(
        reader="idefics:read_idefics3",
        text=_TEXT,
        prefix=_IDEFICS_MODEL,
        texts={ABSENT: "LlamaForCausalLM", "llama": "LlamaForCausalLM"},
        text_defaults=_TEXT_SIZES,
    ),
    "Glm4vForConditionalGeneration": Family(
        reader="glm_vision:read_glm4v",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Glm4ForCausalLM"},
        defaults={"head_dim": None, "attention_bias": None, "max_position_embeddings": 32768},
    ),
    "Glm4vMoeForConditionalGeneration": Family(
        reader="glm_vision:read_glm4v",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Glm4MoeForCausalLM"},
        defaults={
            "n_routed_experts": 128,
            "moe_intermediate_size": 1408,
            "attention_bias": True,
            "max_position_embeddings": 65536,
        },
    ),
    "Qwen2AudioForConditionalGeneration": Family(
        reader="qwen_audio:read_qwen2_audio",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen2ForCausalLM"},
    ),
    "Qwen2_5OmniModel": _QWEN2_5_OMNI,
    "Qwen2_5OmniForConditionalGeneration": _QWEN2_5_OMNI,
    "Qwen3OmniMoeForConditionalGeneration": Family(
        reader="qwen_audio:read_qwen3_omni",
        text="thinker_config.text_config",
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Qwen3MoeForCausalLM"},
    ),
    "Gemma3nForConditionalGeneration": Family(
        reader="gemma3n_vision:read_gemma3n_multimodal",
        text=_TEXT,
        prefix=_LANGUAGE_MODEL,
        texts={ANY: "Gemma3nForCausalLM"},
    ),
}
