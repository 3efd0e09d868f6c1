"""Makes tests/data/log_rows.csv: for every start of tests/data/vllm_startup_logs.jsonl what sizing takes and
what the engine found, with what is missing and why.

    python -m harness.log_rows > tests/data/log_rows.csv

Nothing is guessed: a field that the source does not state stays empty, but for the engine's own defaults
where version and card decide them ("default"), the total of a card whose product is named ("card") and the
shape of a model whose checkpoint only stores it otherwise (`SAME_SHAPE`).
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tonnage.catalogue import find
from tonnage.engines import UnknownEngineVersionError, release_of
from tonnage.engines.gpu import GPU_RULES
from tonnage.engines.overheads import memory_rules_for
from tonnage.gpus.cards import Card, card_named

DATA: Final = Path(__file__).parents[1] / "data"
GIB: Final = 2**30

SAME_SHAPE: Final = {
    "Erland/DeepSeek-R1-0528-Qwen3-8B": "Qwen/Qwen3-8B",
    "MiniMaxAI/MiniMax-M2": "MiniMaxAI/MiniMax-M2.5",
    "Qwen/Qwen1.5-MoE-A2.7B": "Qwen/Qwen1.5-MoE-A2.7B-Chat",
    "Qwen/Qwen2.5-7B-Instruct-AWQ": "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8": "Qwen/Qwen3-235B-A22B-FP8",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8": "Qwen/Qwen3-30B-A3B-FP8",
    "Qwen/Qwen3-Next-80B-A3B-Instruct": "Qwen/Qwen3-Next-80B-A3B-Thinking",
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16": "meta-llama/Llama-3.1-8B-Instruct",
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8": "meta-llama/Llama-3.1-8B-Instruct",
    "RedHatAI/Mistral-Small-3.1-24B-Instruct-2503-quantized.w8a8": (
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503"
    ),
    "RedHatAI/Qwen2.5-7B-Instruct-fp8-dynamic": "Qwen/Qwen2.5-7B-Instruct",
    "RedHatAI/Qwen2.5-7B-Instruct-quantized.w8a8": "Qwen/Qwen2.5-7B-Instruct",
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": "Qwen/Qwen3-8B",
    "meta-llama/Meta-Llama-3-8B": "meta-llama/Meta-Llama-3-8B-Instruct",
    "moonshotai/Kimi-Dev-72B": "Qwen/Qwen2.5-72B-Instruct",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w8a8": "meta-llama/Meta-Llama-3.1-70B",
    "unsloth/Llama-3.2-1B-Instruct-FP8-Block": "meta-llama/Llama-3.2-1B-Instruct",
    "unsloth/Qwen3-4B-Base": "Qwen/Qwen3-4B",
    "unsloth/Qwen3-8B-FP8": "Qwen/Qwen3-8B",
    "unsloth/meta-llama-3.1-8b-instruct-unsloth-bnb-4bit": "meta-llama/Llama-3.1-8B-Instruct",
    "unsloth/phi-4-bnb-4bit": "microsoft/phi-4",
    "unsloth/qwen2.5-3b-instruct-unsloth-bnb-4bit": "Qwen/Qwen2.5-3B-Instruct",
}
"""Checkpoints that store another model's tensors, by the model whose config.json gives the shape."""

_PRODUCTS: Final = (
    (r"\bMIG\b", ""),
    (r"\bMI\d|ROCm|Arc|Laptop|GB10|GH200|V100|unified|\+ ", ""),
    (r"\bH100 NVL", "H100-NVL"),
    (r"\bH100\b", "H100-80GB"),
    (r"\bH200\b", "H200"),
    (r"\bB200\b", "B200"),
    (r"\bA100.*40 ?GB", "A100-40GB"),
    (r"\bA[18]00.*80 ?GB", "A100-80GB"),
    (r"\bL40S (48GB)?$|\bL40S 48GB", "L40S"),
    (r"\bL4\b", "L4"),
    (r"\bT4\b", "T4"),
    (r"\bA10G?\b(?!/)", "A10"),
    (r"\bRTX 5090\b", "RTX-5090"),
    (r"\bRTX 4090\b", "RTX-4090"),
    (r"\bRTX 3090\b", "RTX-3090"),
)
_CAPABILITIES: Final = ((r"RTX PRO \d+ Blackwell|RTX 50\d0", "12.0"), (r"\bGB10\b", "12.1"))
"""Of products whose memory the catalogue does not have."""
_FIELDS: Final = (
    "id", "source", "outcome", "fail_class", "core", "engine_version", "model", "config", "config_source",
    "quantization", "dtype", "kv_dtype", "product", "capability", "total_gib", "total_from",
    "stated_size_gib", "free_at_start_gib", "tensor_parallel", "pipeline_parallel", "utilization",
    "utilization_from",
    "max_model_len", "max_num_seqs", "max_num_seqs_from", "max_num_batched_tokens",
    "max_num_batched_tokens_from", "eager", "lora_slots", "args", "weights_gib", "weights_from",
    "available_kv_gib", "kv_tokens", "non_torch_gib", "activation_gib", "graphs_gib", "graph_estimate_gib",
    "kv_needed_gib", "kv_available_at_failure_gib", "consumed_gib", "kv_in_use_gib", "missing",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    writer = csv.DictWriter(sys.stdout, _FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows())


def rows() -> Iterator[dict[str, Any]]:
    """One line for each start, empty where nothing is stated."""
    configs = {line["name"]: line["source"] for line in _lines("log_configs.jsonl")}
    for row in _lines("vllm_startup_logs.jsonl"):
        yield _row(row, configs)


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def _row(row: dict[str, Any], configs: dict[str, str]) -> dict[str, Any]:
    figures, args = row["figures"], row.get("args") or ""
    card = _card(row.get("gpu_type") or "")
    found: dict[str, Any] = {
        "id": row["id"], "source": row["source"], "outcome": row["outcome"],
        "fail_class": row.get("fail_class"), "core": row["engine"], "engine_version": row.get("vllm_version"),
        "model": row.get("model"), "quantization": row.get("weight_quantization"), "dtype": row.get("dtype"),
        "kv_dtype": row.get("kv_cache_dtype"), "product": card.name if card else None,
        "capability": _capability(row.get("gpu_type") or "", card),
        "stated_size_gib": _stated_size(row.get("gpu_type") or ""),
        "free_at_start_gib": figures.get("free_at_startup_gib"),
        "tensor_parallel": row.get("tensor_parallel"), "pipeline_parallel": row.get("pipeline_parallel"),
        "max_model_len": row.get("max_model_len"), "eager": row.get("enforce_eager"),
        "lora_slots": _lora_slots(args), "args": args, "consumed_gib": figures.get("consumed_gib"),
        "kv_in_use_gib": figures.get("kv_in_use_gib"),
        "available_kv_gib": _first(figures, "available_kv_gib", "reserved_kv_gib"),
        "kv_tokens": figures.get("kv_tokens"),
        "non_torch_gib": figures.get("non_torch_gib"),
        "activation_gib": figures.get("activation_peak_gib"),
        "graphs_gib": _first(figures, "cudagraph_pool_actual_gib", "cudagraph_gib", "graph_capture_gib"),
        "graph_estimate_gib": figures.get("cudagraph_pool_estimated_gib"),
        "kv_needed_gib": figures.get("fail_kv_needed_gib"),
        "kv_available_at_failure_gib": figures.get("fail_kv_available_gib"),
    }  # fmt: skip
    found |= _config(row.get("model") or "", configs)
    found |= _total(row, card)
    found |= _weights(figures, own_config=found["config"] == row.get("model"))
    found |= _settings(row, card, total_gib=found["total_gib"])
    found["missing"] = "; ".join(_missing(found))
    return found


def _first(figures: dict[str, Any], *names: str) -> float | None:
    return next((figures[name] for name in names if name in figures), None)


def _card(text: str) -> Card | None:
    name = next((name for pattern, name in _PRODUCTS if re.search(pattern, text.replace("-", " "))), "")
    return card_named(name) if name else None


def _capability(text: str, card: Card | None) -> str | None:
    if card is not None:
        return ".".join(map(str, card.compute_capability))
    return next((found for pattern, found in _CAPABILITIES if re.search(pattern, text)), None)


def _lora_slots(args: str) -> int | None:
    match = re.search(r"(\d+) (?:adapter )?slot", args)
    return int(match[1]) if match else None


def _config(model: str, configs: dict[str, str]) -> dict[str, Any]:
    name = SAME_SHAPE.get(model, model)
    if name in configs:
        return {"config": name, "config_source": configs[name]}
    entry = find(name) if "/" in name else None
    if entry is None:
        return {"config": None, "config_source": None}
    return {"config": entry.name, "config_source": entry.source}


def _total(row: dict[str, Any], card: Card | None) -> dict[str, Any]:
    logged = row["figures"].get("total_gpu_memory_gib") or row.get("gpu_memory_gib")
    if logged is None and (capacity := row["figures"].get("oom_capacity_gib")):
        return {"total_gib": capacity, "total_from": "out-of-memory error"}
    if logged is not None:
        return {"total_gib": logged, "total_from": "logged"}
    if card is not None and card.visible_gib is not None:
        return {"total_gib": card.visible_gib, "total_from": "card"}
    return {"total_gib": None, "total_from": None}


def _stated_size(text: str) -> float | None:
    """What the source calls the card, such as "Arc 16GB": CUDA shows no more."""
    match = re.search(r"(\d+(?:\.\d+)?) ?Gi?B", text)
    return float(match[1]) if match and "MIG" not in text and " + " not in text else None


def _weights(figures: dict[str, Any], *, own_config: bool) -> dict[str, Any]:
    # Of several stages each logs its own, and both figures need not be of one.
    stated = [figures[name] for name in ("weights_gib", "model_load_gib") if name in figures]
    logged = max(stated, default=None)
    return {
        "weights_gib": logged,
        "weights_from": "logged" if logged is not None else "config" if own_config else None,
    }


def _settings(row: dict[str, Any], card: Card | None, *, total_gib: float | None) -> dict[str, Any]:
    """What was stated, else the default of the engine's API server where version and card say it: the same in
    all V1 releases for sequences and tokens, 0.9 before 0.21 for the utilization."""
    release = release_of(row.get("vllm_version") or "")
    found: dict[str, Any] = {}
    tier = None
    memory = card.memory_bytes if card else int((total_gib or 0) * GIB)
    if release and release >= (0, 9) and memory and row["engine"] == "V1":
        tier = GPU_RULES[0].batch_tier(memory_bytes=memory, name=card.product if card else "")
    defaults = {
        "max_num_seqs": tier.max_num_seqs if tier else None,
        "max_num_batched_tokens": tier.batched_tokens if tier else None,
        "utilization": 0.9 if release and (0, 9) <= release < (0, 21) else None,
    }
    for field, default in defaults.items():
        stated = row.get("gpu_memory_utilization" if field == "utilization" else field)
        found[field] = default if stated is None else stated
        found[f"{field}_from"] = "stated" if stated is not None else "default" if default else None
    return found


def _missing(found: dict[str, Any]) -> Iterator[str]:
    if found["core"] != "V1":
        yield "the V0 core is not modelled"
        return
    if found["engine_version"] is None:
        yield "engine version: the source does not state it"
    else:
        try:
            memory_rules_for(found["engine_version"])
        except UnknownEngineVersionError:
            yield "engine version: older than any whose memory is known"
        if (0, 26) < (release_of(found["engine_version"]) or (0, 0)) < (0, 32):
            yield "model runner: which of the two served is not known between 0.26 and 0.32"
    if found["model"] is None:
        yield "model: not named"
    elif found["config"] is None:
        yield "config.json: none at hand for this model"
    if found["total_gib"] is None:
        yield "device total: neither logged nor the product named"
    if found["capability"] is None:
        yield "product: not named, or not one whose memory is known"
    for field, words in (
        ("utilization", "utilization"), ("max_num_seqs", "max_num_seqs"),
        ("max_num_batched_tokens", "max_num_batched_tokens"), ("tensor_parallel", "tensor parallel size"),
        ("weights_from", "weights: not logged, and the checkpoint's own config is not at hand"),
    ):  # fmt: skip
        if found[field] is None:
            yield words if ":" in words else f"{words}: not stated, and no default is known"


if __name__ == "__main__":
    main()
