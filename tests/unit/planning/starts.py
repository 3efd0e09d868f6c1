"""Real starts of the engine, with the bytes that each had: an H200 (tests/data/gpu_rows.jsonl) and logs of
many cards (tests/data/vllm_startup_logs.jsonl)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from tonnage.catalogue.entries import find
from tonnage.models import ModelShape, parse_config
from tonnage.planning.budget import Budget, Load, budget
from tonnage.planning.fit import Device, EngineOptions, lay_out
from tonnage.planning.weights import stored_in_fp8, weight_bytes
from unit.models.samples import DATA, published_configs, published_quantization

GIB: Final = 2**30
_ALL_SIZES: Final = 51
_SAME_SHAPE: Final = {
    "moonshotai/Kimi-Dev-72B": "Qwen/Qwen2.5-72B-Instruct",
    "Qwen/Qwen1.5-MoE-A2.7B": "Qwen/Qwen1.5-MoE-A2.7B-Chat",
}
_CAPABILITIES: Final = {"H100": (9, 0), "H200": (9, 0), "L40S": (8, 9), "A100": (8, 0), "L4": (8, 9)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start. `kv_bytes` is what the engine had for its KV cache at `share` of the device, None where
    that was pinned; `other_bytes` all that the device held beside the cache, after a burst where there was
    one, for logs the sum of what was logged."""

    id: str
    budget: Budget
    share: float
    graphs_inside: bool
    kv_bytes: int | None
    other_bytes: int
    activation_bytes: int | None

    @property
    def promised_bytes(self) -> int:
        """What our upper figures leave at the same share: what the engine counts within it is subtracted."""
        ours = self.budget
        inside = ours.non_torch.upper + ours.weights.upper + ours.activation.upper
        inside += ours.graphs.upper if self.graphs_inside else 0
        return int(self.share * ours.total_bytes) - inside

    @property
    def unused_bytes(self) -> int:
        """What our plan would leave unused beside the cache."""
        return self.budget.other_bytes - self.other_bytes


@cache
def on_h200() -> tuple[Start, ...]:
    """Starts of vLLM 0.26 measured for this project."""
    rows = map(json.loads, (DATA / "gpu_rows.jsonl").read_text().splitlines())
    return tuple(_measured(row) for row in rows if "memory" in row)


@cache
def logged() -> tuple[Start, ...]:
    """Starts that others logged, of engines whose sampler takes what that of today does (0.17 on), where the
    catalogue has the model and the log states every figure."""
    rows = map(json.loads, (DATA / "vllm_startup_logs.jsonl").read_text().splitlines())
    return tuple(start for row in rows for start in _logged(row))


def _measured(row: dict[str, Any]) -> Start:
    memory = row["memory"]
    name = f"{row['config']}_config.json"
    config = {**published_configs()[name], **(row.get("patch") or {})}
    shape = parse_config(config, hf_quant_config=published_quantization(name))
    options = EngineOptions(
        kv_dtype=row["engine"].get("kv_cache_dtype", "auto"),
        context_tokens=row["max_model_len"],
        max_num_seqs=memory["max_num_seqs"],
        max_num_batched_tokens=memory["max_num_batched_tokens"],
    )
    load = _load(shape, (9, 0), options, sizes=memory["captured_sizes"], version=row["vllm"])
    used = memory["used_after_burst"] or memory["used_at_ready"]
    return Start(
        id=row["id"],
        budget=budget(load, total_bytes=row["total_bytes"]),
        share=memory["utilization"],
        graphs_inside=not memory["second_runner"],
        kv_bytes=None if memory["pinned"] else row["available_bytes"],
        other_bytes=used - memory["kv"],
        activation_bytes=memory["activation"],
    )


def _logged(row: dict[str, Any]) -> Iterator[Start]:
    figures, model, card = row["figures"], row.get("model", ""), row.get("gpu_type", "")
    version = tuple(int(part) for part in row.get("vllm_version", "0").split(".")[:2])
    entry = find(_SAME_SHAPE.get(model, model))
    capability = next((found for name, found in _CAPABILITIES.items() if name in card), None)
    parts = ("weights_gib", "non_torch_gib", "activation_peak_gib", "available_kv_gib", "free_at_startup_gib")
    complete = all(part in figures for part in parts) and "total_gpu_memory_gib" in figures
    if row["engine"] != "V1" or row["outcome"] != "ok" or (0, 0) < version < (0, 17) or not complete:
        return
    if entry is None or capability is None:
        return
    shape = parse_config(entry.config, hf_quant_config=entry.hf_quant_config)
    if row.get("weight_quantization") == "fp8" and shape.quantization is None:
        shape = stored_in_fp8(shape)
    options = EngineOptions(
        tensor_parallel=row["tensor_parallel"],
        pipeline_parallel=row["pipeline_parallel"],
        dtype=row.get("dtype"),
        context_tokens=row["max_model_len"],
        max_num_seqs=row["max_num_seqs"],
        max_num_batched_tokens=row["max_num_batched_tokens"],
    )
    total = figures["total_gpu_memory_gib"]
    graphs = figures.get("cudagraph_pool_actual_gib", figures.get("graph_capture_gib", 0))
    other = graphs + total - figures["free_at_startup_gib"] + sum(figures[part] for part in parts[:3])
    yield Start(
        id=row["id"],
        budget=budget(_load(shape, capability, options, sizes=_ALL_SIZES), total_bytes=int(total * GIB)),
        share=row["gpu_memory_utilization"],
        graphs_inside=version >= (0, 21),
        kv_bytes=int(figures["available_kv_gib"] * GIB),
        other_bytes=int(other * GIB),
        activation_bytes=int(figures["activation_peak_gib"] * GIB),
    )


def _load(
    shape: ModelShape,
    capability: tuple[int, int],
    options: EngineOptions,
    *,
    sizes: int,
    version: str = "0.32.0",
) -> Load:
    laid = lay_out(
        shape,
        device=Device(compute_capability=capability),
        options=options,
        engine_version=version,
    )
    weights = weight_bytes(
        shape,
        dtype=laid.settled.dtype,
        tensor_parallel=options.tensor_parallel,
        pipeline_parallel=options.pipeline_parallel,
        capability=capability,
    )
    return Load(laid=laid, weights=max(weights), captured_sizes=sizes)
