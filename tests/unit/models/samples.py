"""Model shapes that tests of several rooms use."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tonnage.models import ConfigError, ModelProfile, Weights, parse_config

T = TypeVar("T")
DATA = Path(__file__).parents[2] / "data"


@cache
def _published() -> dict[str, dict[str, Any]]:
    with gzip.open(DATA / "model_configs.jsonl.gz", "rt") as lines:
        return dict(json.loads(line) for line in lines)


def published_configs() -> dict[str, dict[str, Any]]:
    """Trimmed config.json files by name (tests/data/README.md)."""
    return {
        name: config for name, config in _published().items() if not name.endswith("_hf_quant_config.json")
    }


def published_quantization(name: str) -> dict[str, Any] | None:
    """The hf_quant_config.json beside a config.json of `published_configs`, None where there is none."""
    return _published().get(name.replace("_config.json", "_hf_quant_config.json"))


def outcome(read: Callable[[], T]) -> T | ConfigError:
    """What a reader answers, or its refusal as a value; any other exception passes through."""
    try:
        return read()
    except ConfigError as error:
        return error


def smollm2_config() -> dict[str, Any]:
    return published_configs()["SmolLM2-135M-Instruct_config.json"]


def profile_of(
    config: dict[str, Any], *, weight_bytes: int = 269_030_016, stored_dtype: str = "BF16"
) -> ModelProfile:
    """A profile with the weights of one dtype; the default size is SmolLM2's."""
    width = {"BF16": 2, "F16": 2, "F32": 4}[stored_dtype]
    weights = Weights(bytes_by_dtype=((stored_dtype, weight_bytes),), parameters=weight_bytes // width)
    return ModelProfile(shape=parse_config(config), weights=weights)


def llama_config(**changes: Any) -> dict[str, Any]:
    """A small Llama-like config with `changes` on top; a change to None stays null."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": 1000,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        **changes,
    }


def latent_config(**changes: Any) -> dict[str, Any]:
    """A small model with latent attention and routed experts."""
    return llama_config(
        **{
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "num_key_value_heads": 8,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 256,
            "first_k_dense_replace": 1,
            **changes,
        }
    )
