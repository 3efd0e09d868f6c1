"""What a line of tests/data/kv_oracle.jsonl asked of the engine, as `fit` takes it."""

from __future__ import annotations

from typing import Any, Final

from tonnage.planning.fit import Device, EngineOptions

GIB: Final = 2**30
CARD_BYTES: Final = {
    "NVIDIA H100 80GB HBM3": 80 * GIB,
    "NVIDIA A100-SXM4-80GB": 80 * GIB,
    "NVIDIA B200": 178 * GIB,
}
"""Memory of the cards in the rows: it decides default batch sizes."""


def device_of(line: dict[str, Any]) -> Device:
    """What the row was computed for."""
    if line["platform"] == "cpu":
        return Device(compute_capability=None)
    major, minor = line["platform"].removeprefix("cuda:").split(".")
    name = line.get("device") or "NVIDIA H100 80GB HBM3"
    return Device(compute_capability=(int(major), int(minor)), name=name, memory_bytes=CARD_BYTES[name])


def options_of(line: dict[str, Any]) -> EngineOptions:
    """What the user asked of the engine; the rest is left to defaults."""
    asked = line["engine_args"]
    return EngineOptions(
        tensor_parallel=line["tp"],
        pipeline_parallel=line["pp"],
        decode_context_parallel=line["dcp"],
        expert_parallel=asked.get("enable_expert_parallel", False),
        dtype=asked.get("dtype"),
        kv_dtype=asked.get("kv_cache_dtype", "auto"),
        kv_dtype_skip_layers=tuple(asked.get("kv_cache_dtype_skip_layers", ())),
        block_tokens=asked.get("block_size"),
        context_tokens=asked.get("max_model_len"),
        max_num_seqs=asked.get("max_num_seqs"),
        max_num_batched_tokens=asked.get("max_num_batched_tokens"),
        prefix_caching=asked.get("enable_prefix_caching"),
        hybrid_manager=not asked.get("disable_hybrid_kv_cache_manager", False),
        enforce_eager=asked.get("enforce_eager", False),
    )
