"""Model shapes that tests of several rooms use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tonnage.models import ConfigError, ModelProfile, Weights, parse_config

T = TypeVar("T")
DATA = Path(__file__).parents[2] / "data"


def published_configs() -> dict[str, dict[str, Any]]:
    """Trimmed config.json files by name (tests/data/README.md)."""
    configs: dict[str, dict[str, Any]] = json.loads((DATA / "model_configs.json").read_text())
    return configs


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
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        **changes,
    }
