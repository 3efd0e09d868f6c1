"""llm-d-planner: bytes per token from the transformers config, over all GPUs.

Read in llm-d-planner 0.3.3 as published on PyPI: `KVCacheDetail`, `inference_dtype_byte`, `use_mla`,
`max_concurrent_requests` and `total_kv_cache_blocks` in planner/capacity_planner.py; the same formulas
in llm-d-incubation/llm-d-planner@753e55abe989 src/planner/capacity_planner.py.

The tool reads a transformers config object; here config.json is read as it is. What its classes make of it is
repeated where it matters: the head size of latent attention is its rotary part (transformers 5.19
models/deepseek_v3/configuration_deepseek_v3.py), the layers of Nemotron-H are those listed. Fields that
transformers would fill in otherwise count as missing.
"""

from __future__ import annotations

import re
from typing import Final

from bench.peers.question import Config, Peer, Question, UnansweredError, needed, number, part

_LATENT: Final = ("DeepseekV3ForCausalLM", "DeepseekV2ForCausalLM")
_NAMED: Final = {
    "fp4": 0.5,
    "u4": 0.5,
    "i4": 0.5,
    "int4": 0.5,
    "bool": 1.0,
    "mxfp4": 4.25 / 8,
    "bf16": 2.0,
    "f16": 2.0,
    "f32": 4.0,
    "u8": 1.0,
}
_UNKNOWN: Final = 1.0
"""What it takes where neither a dtype nor a quantization is stated."""


def tokens(question: Question) -> float:
    """Requests times length: KV bytes of all GPUs over the bytes of one token (`max_concurrent_requests`)."""
    return question.kv_bytes * question.ranks / bytes_per_token(question)


def tokens_by_blocks(question: Question) -> float:
    """Blocks times 16: the same bytes over a rank's share of one token (`total_kv_cache_blocks`)."""
    return tokens(question) * question.ranks


def bytes_per_token(question: Question) -> int:
    """Bytes of one token over all layers; every layer remembers everything."""
    text = part(question.config, "text_config") or question.config
    layers = number(text, "num_hidden_layers", "n_layer") or len(text.get("layers_block_type") or ())
    if not layers:
        raise UnansweredError("config.json has no num_hidden_layers")
    if any(name in question.architecture for name in _LATENT):
        elements = needed(text, "kv_lora_rank") + needed(text, "qk_rope_head_dim")
    else:
        heads = needed(text, "num_attention_heads", "n_head")
        size = number(text, "qk_rope_head_dim") if number(text, "kv_lora_rank") else 0
        size = size or number(text, "head_dim") or needed(text, "hidden_size", "n_embd") // heads
        elements = 2 * size * needed(text, "num_key_value_heads")
    per_token = int(layers * elements * element_bytes(question.config))
    if not per_token:
        raise UnansweredError("a token takes no bytes")
    return per_token


def element_bytes(config: Config) -> float:
    """Bytes of one KV element: the model's dtype, whatever KV dtype is asked for."""
    quantization = part(config, "quantization_config")
    dtype = config.get("torch_dtype") or config.get("dtype")
    stated = str(dtype if dtype is not None else quantization.get("quant_method", ""))
    found = _bytes_of(stated)
    if found is not None:
        return found
    return _quantized_bytes(quantization) if quantization else _UNKNOWN


def _bytes_of(precision: str) -> float | None:
    name = precision.strip().lower()
    if name in _NAMED:
        return _NAMED[name]
    bits = re.search(r"\d+", name)
    return int(bits[0]) // 8 if bits and int(bits[0]) % 8 == 0 else None


def _quantized_bytes(quantization: Config) -> float:
    if isinstance(quantization.get("bits"), int):
        return int(quantization["bits"]) // 8
    weights = part(part(part(quantization, "config_groups"), "group_0"), "weights")
    return needed(weights, "num_bits") // 8


PEER = Peer(name="llm-d-planner, requests", source="PyPI llm-d-planner 0.3.3", tokens=tokens)
PEER_BY_BLOCKS = Peer(name="llm-d-planner, blocks", source=PEER.source, tokens=tokens_by_blocks)
