"""Wrappers of a text model: vision and audio encoders, encoder-decoders.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.family import ANY, Family

_LANGUAGE_MODEL: Final = "language_model."
_TEXT: Final = "text_config"

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
}
