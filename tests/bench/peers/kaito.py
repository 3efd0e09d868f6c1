"""KAITO: bytes per token from the config, divided over the GPUs.

Read in kaito-project/kaito: `calculateKVCacheTokenSize` and `mergeTextConfig` in
presets/workspace/generator/generator.go@7e16ebe4fda5, key names in model_catalog.go@037fb3527ad0,
`calculateMemoryParameters` in pkg/workspace/estimator/max_model_len.go@76fb6ade15ac (latent caches are whole
on every rank of tensor parallelism; website/docs/memory-estimator.md@5419c92a7e7f says the same),
`WeightExpansionFactor` in pkg/workspace/estimator/budget.go@3cc8a5b6244c.

Left out: the clamp to the model's context limit and the rounding down to 256 tokens, which are about one
request and would only add error.
"""

from __future__ import annotations

from bench.peers.question import Config, Peer, Question, UnansweredError, number, part

WEIGHT_EXPANSION = 1.02
"""Loaded weights over the bytes of the checkpoint's files."""

_ELEMENT_BYTES = 2
"""Always: the KV dtype that the engine is started with does not enter."""


def tokens(question: Question) -> float:
    """Tokens of `kv_bytes` on each GPU; tensor parallelism is a node's GPUs, the pipeline is over nodes."""
    per_token, latent = bytes_per_token(question.config)
    shared = question.pipeline_parallel * (1 if latent else question.tensor_parallel)
    return question.kv_bytes * shared / per_token


def bytes_per_token(config: Config) -> tuple[int, bool]:
    """(bytes of one token over all layers and GPUs, whether the cache is latent)."""
    nested = part(config, "text_config") or part(config, "llm_config")
    merged = {**nested, **config}
    layers = number(merged, "num_hidden_layers", "n_layer", "n_layers")
    latent = isinstance(merged.get("kv_lora_rank"), int)
    elements = layers * (_latent_elements(merged) if latent else _head_elements(merged))
    if not elements:
        raise UnansweredError("config.json names no layers or attention heads")
    return elements * _ELEMENT_BYTES, latent


def _latent_elements(config: Config) -> int:
    return number(config, "kv_lora_rank") + number(config, "qk_rope_head_dim")


def _head_elements(config: Config) -> int:
    heads = number(config, "num_attention_heads", "n_head", "n_heads")
    if not heads:
        return 0
    hidden = number(config, "hidden_size", "n_embd", "d_model", "dim")
    head_size = number(config, "head_dim", "attention_head_dim") or hidden // heads
    kv_heads = number(config, "num_key_value_heads", "n_head_kv", "n_kv_heads")
    if not kv_heads:
        kv_heads = 1 if config.get("multi_query") is True else heads
    return 2 * kv_heads * head_size


PEER = Peer(name="KAITO", source="kaito-project/kaito@7e16ebe4fda5", tokens=tokens)
