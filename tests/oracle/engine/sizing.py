"""From cache specs and bytes to blocks: vLLM's own functions in the order in which its engine calls them."""

from __future__ import annotations

from typing import Any

from oracle.engine.build import Built
from oracle.engine.case import Case


def sized(case: Case, built: Built) -> dict[str, Any]:
    """The figures of `Answer` that follow from the bytes. Raises the engine's errors."""
    from vllm.v1.core import kv_cache_utils

    config, cache = built.config, built.config.cache_config
    ranks = case.arguments.get("tensor_parallel_size", 1)
    specs = [stage.specs for stage in built.stages for _ in range(ranks)]
    configs = kv_cache_utils.get_kv_cache_configs(config, specs, [case.kv_bytes] * len(specs))
    scheduled = kv_cache_utils.generate_scheduler_kv_cache_config(configs)
    cache.num_gpu_blocks = scheduled.num_blocks
    tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, scheduled)
    return {
        "blocks": scheduled.num_blocks,
        "block_bytes": kv_cache_utils._pool_bytes_per_block(config, configs[0].kv_cache_groups),
        "tokens": tokens,
        "concurrency": concurrency,
        "requests": {length: _requests(config, scheduled, length) for length in case.lengths},
    }


def _requests(config: Any, scheduled: Any, length_tokens: int) -> float:
    """How many requests of a length are held at once: what the engine computes for its longest."""
    from vllm.v1.core.kv_cache_utils import get_max_concurrency_for_kv_cache_config

    longest = config.model_config.max_model_len
    config.model_config.max_model_len = length_tokens
    try:
        return float(get_max_concurrency_for_kv_cache_config(config, scheduled))
    finally:
        config.model_config.max_model_len = longest


def settings(config: Any) -> dict[str, Any]:
    """What the engine made of its arguments."""
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    return {
        "architecture": model.architectures[0] if model.architectures else "",
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": model.quantization or "",
        "max_model_len": model.max_model_len,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "kv_cache_dtype": cache.cache_dtype,
        "block_size": cache.block_size,
        "prefix_caching": bool(cache.enable_prefix_caching),
        "enforce_eager": bool(model.enforce_eager),
        "captured_sizes": list(config.compilation_config.cudagraph_capture_sizes or ()),
    }
