"""From what `gpu_run` writes to the lines of tests/data/gpu_rows.jsonl: figures only.

python -m bench.gpu_fixtures ROWS.jsonl...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

_COUNTS = ("num_gpu_blocks", "block_size", "kv_cache_size_tokens", "max_concurrency", "max_model_len")
_FLAGS = {
    "--kv-cache-dtype": "kv_cache_dtype",
    "--kv-cache-memory-bytes": "kv_cache_memory_bytes",
    "--tensor-parallel-size": "tensor_parallel",
    "--max-loras": "max_loras",
    "--max-lora-rank": "max_lora_rank",
    "--gdn-prefill-backend": "gdn_prefill_backend",
}
_UNSAID = {"--tensor-parallel-size": "1"}
_SWITCHES = {"--language-model-only": "language_model_only", "--enforce-eager": "enforce_eager"}
_COMPILED = "Compiling a graph for compile range"  # of code that is loaded the engine says "Directly load"
_BURST = ("name", "requests", "prompt_tokens", "output_tokens", "completed", "failed", "seconds")


def fixture(row: dict[str, Any]) -> dict[str, Any]:
    """One line; `ok` tells whether it served and answered all of its load."""
    engine = row["engine"]
    found = {
        "id": row["id"],
        "config": row["config"],
        "vllm": engine.get("vllm"),
        "ok": row["survived"],
        "kind": row["kind"],
        "engine": _options(row["arguments"], engine),
    }
    if row.get("patch"):
        found["patch"] = row["patch"]
    if row.get("exit") and not row["survived"]:
        found["exit"] = row["exit"]
    memory = engine.get("mem", {})
    if "num_gpu_blocks" not in engine or "weights" not in memory:
        return found
    return {
        **found,
        **{name: engine[name] for name in _COUNTS},
        "attn_backends": engine.get("attn_backends", []),
        "available_bytes": memory["available_kv"],
        "param_bytes": memory["param_bytes"],
        "total_bytes": memory["total"],
        "ready_s": row["start"]["ready_s"],
        "memory": _memory(row, engine, memory),
        "bursts": [_burst(burst) for burst in row["bursts"]],
    }


def _options(arguments: Sequence[str], engine: dict[str, Any]) -> dict[str, Any]:
    pairs = dict(pairwise(arguments))
    limits = engine.get("sched", {})
    found: dict[str, Any] = {
        "max_model_len": int(pairs["--max-model-len"]),
        "max_num_seqs": limits.get("max_num_seqs", int(pairs["--max-num-seqs"])),
        "max_num_batched_tokens": int(pairs["--max-num-batched-tokens"]),
    }
    if "cache" in engine:
        found["enable_prefix_caching"] = engine["cache"]["prefix"]
    for flag, name in _FLAGS.items():
        if pairs.get(flag, _UNSAID.get(flag, "auto")) != _UNSAID.get(flag, "auto"):
            found[name] = int(pairs[flag]) if pairs[flag].isdecimal() else pairs[flag]
    return found | {name: True for flag, name in _SWITCHES.items() if flag in arguments}


def _memory(row: dict[str, Any], engine: dict[str, Any], memory: dict[str, Any]) -> dict[str, Any]:
    """Bytes of everything, as the engine counted them and as the device showed them.

    `activation` is what the profile run took, by torch's count where bytes are pinned and the engine does not
    look; `forward` is that before the sampler. `cold`: code was compiled in it, not found in a cache.
    """
    total = memory["total"]
    pinned = engine["cache"]["kv_cache_memory_bytes"] is not None
    loads = [burst["engine"]["free"] for burst in row["bursts"] if "engine" in burst]
    ready = engine["snap"]["warmup"]["free"]
    return {
        "architecture": engine["architectures"][0],
        "second_runner": engine["v2_runner"],
        "max_num_seqs": engine["sched"]["max_num_seqs"],
        "max_num_batched_tokens": engine["sched"]["max_num_batched_tokens"],
        "utilization": engine["cache"]["util"],
        "pinned": pinned,
        "captured_sizes": engine["compile"]["sizes"],
        "weights": memory["weights"],
        "non_torch": memory.get("non_torch"),
        "activation": memory.get("peak_activation") or memory.get("profile_peak"),
        "compile_seconds": round(engine["compile"]["seconds"], 1),
        "cold": any(_COMPILED in line for line in row["log"]),
        "forward": memory.get("forward_peak"),
        "graph_estimate": memory.get("cudagraph_estimate"),
        "graphs": memory.get("cudagraph_actual"),
        "free_at_start": memory["free_at_start"],
        "kv": engine["kv_tensor_bytes"],
        "used_at_ready": total - ready,
        "used_after_burst": total - min(loads) if loads else None,
    }


def _burst(burst: dict[str, Any]) -> dict[str, Any]:
    inside = burst.get("engine", {})
    return {
        **{name: burst[name] for name in _BURST},
        "peak_used": burst["peak_used"],
        "running": int(burst["most"].get("running", 0)),
        "preemptions": int(burst["most"].get("preemptions", 0)),
        "kv_usage": round(burst["most"].get("kv_usage", 0.0), 4),
        "peak_allocated": inside.get("peak_alloc"),
        "allocation_retries": inside.get("alloc_retries"),
    }


def read_rows(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Rows of several runs; of a row that was run again the last counts, at the place of the first."""
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            rows[row["id"]] = row
    yield from rows.values()


if __name__ == "__main__":
    for told in read_rows([Path(name) for name in sys.argv[1:]]):
        print(json.dumps(fixture(told), separators=(",", ":")))
