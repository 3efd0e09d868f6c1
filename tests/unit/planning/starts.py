"""Real starts of the engine, with the bytes that each had: ours (tests/data/gpu_rows.jsonl), and in logs of
many cards (tests/data/log_rows.csv)."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Final

from tonnage.catalogue.entries import find
from tonnage.engines import UnknownEngineVersionError, gpu_rules_for
from tonnage.engines.overheads import memory_rules_for
from tonnage.models import ModelShape, parse_config
from tonnage.planning.adapters import Adapters
from tonnage.planning.budget import Budget, budget
from tonnage.planning.fit import Device, EngineOptions, LaidOut, lay_out
from tonnage.planning.graphs import captured_sizes
from tonnage.planning.load import Load
from tonnage.planning.weights import stored_in_fp8, weight_bytes
from unit.models.samples import DATA, published_configs, published_quantization

GIB: Final = 2**30
SWEEP: Final = tuple(f"C{number:03}" for number in range(1, 63))
"""The starts of one benchmark: vLLM 0.19.0 on H100."""
_OLDEST_GPU_RULES: Final = "0.26.0"
_WITHOUT_ENCODER: Final = "--textonly"


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start. `kv_bytes` is what the engine had for its KV cache at `share` of the device, None where that
    was pinned; `other_bytes` all that the device held beside the cache, after a burst where there was one,
    for logs the sum of what was logged, None where that is not known;
    `ready_bytes` the same before any request. `kind` is "dense" or "other"."""

    id: str
    model: str
    kind: str
    product: str
    load: Load
    total_bytes: int
    share: float
    kv_bytes: int | None
    other_bytes: int | None = None
    activation_bytes: int | None = None
    non_torch_bytes: int | None = None
    graph_bytes: int | None = None
    ready_bytes: int | None = None
    logged_weights: int | None = None

    @property
    def stated_weights(self) -> int:
        """Bytes of the weights as everybody is told them: logged where the engine logged them (its tables of
        positions are in them), else those of the parameters."""
        return self.logged_weights or self.load.weights

    @cached_property
    def budget(self) -> Budget:
        """Its bytes by our laws."""
        return budget(self.load, total_bytes=self.total_bytes)

    @property
    def estimated_bytes(self) -> int:
        """What our laws say the engine left for its KV cache."""
        return self.budget.measured_kv(utilization=self.share).likely

    @property
    def promised_bytes(self) -> int:
        """The lower bound of the same."""
        return self.budget.measured_kv(utilization=self.share).lower

    @property
    def error_gib(self) -> float:
        """Estimate less what the engine had, in GiB: more than 0 is too much."""
        assert self.kv_bytes is not None
        return (self.estimated_bytes - self.kv_bytes) / GIB

    @property
    def unused_bytes(self) -> int:
        """What our plan would leave unused beside the cache."""
        assert self.other_bytes is not None
        return self.budget.other_bytes - self.other_bytes


@cache
def on_cards() -> tuple[Start, ...]:
    """Starts of vLLM 0.26 measured for this project, on an H200 and an H100."""
    rows = map(json.loads, (DATA / "gpu_rows.jsonl").read_text().splitlines())
    return tuple(measured(row) for row in rows if "memory" in row)


@cache
def log_rows() -> tuple[dict[str, str], ...]:
    """The lines of tests/data/log_rows.csv."""
    with (DATA / "log_rows.csv").open() as file:
        return tuple(csv.DictReader(file))


@cache
def logged() -> tuple[Start, ...]:
    """Successful starts that others logged, of which everything is stated that sizing takes."""
    return tuple(
        logged_start(row)
        for row in log_rows()
        if row["outcome"] == "ok" and not row["missing"] and row["available_kv_gib"]
    )


def measured(row: dict[str, Any]) -> Start:
    """A line of tests/data/gpu_rows.jsonl."""
    memory = row["memory"]
    name, config = _config_of(row)
    shape = parse_config(config, hf_quant_config=published_quantization(name))
    options = EngineOptions(
        kv_dtype=row["engine"].get("kv_cache_dtype", "auto"),
        context_tokens=row["max_model_len"],
        max_num_seqs=memory["max_num_seqs"],
        max_num_batched_tokens=memory["max_num_batched_tokens"],
    )
    laid = lay_out(
        shape, device=Device(compute_capability=(9, 0)), options=options, engine_version=row["vllm"]
    )
    load = Load(
        laid=laid,
        weights=_weights(shape, laid),
        graph_sizes=_sizes(memory["captured_sizes"], laid),
        rules=memory_rules_for(row["vllm"]),
        second_runner=memory["second_runner"],
        adapters=adapters_of(row["engine"].get("max_loras", 0), rank=row["engine"].get("max_lora_rank", 16)),
        cold=memory.get("cold", True),
    )
    used = memory["used_after_burst"] or memory["used_at_ready"]
    return Start(
        id=row["id"],
        model=row["config"],
        kind=_kind(load),
        product="H200" if row["total_bytes"] > 100 * GIB else "H100-80GB",
        load=load,
        total_bytes=row["total_bytes"],
        share=memory["utilization"],
        kv_bytes=None if memory["pinned"] else row["available_bytes"],
        other_bytes=used - memory["kv"],
        activation_bytes=memory["activation"],
        non_torch_bytes=memory["non_torch"],
        graph_bytes=memory.get("graphs"),
        ready_bytes=memory["used_at_ready"] - memory["kv"],
    )


def logged_start(row: dict[str, str]) -> Start:
    """A line of tests/data/log_rows.csv in which nothing is missing."""
    load = _logged_load(row)
    total = float(row["total_gib"]) * GIB
    return Start(
        id=row["id"],
        model=row["config"],
        kind=_kind(load),
        product=row["product"],
        load=load,
        total_bytes=int(total),
        share=float(row["utilization"]),
        kv_bytes=_least_stage(row, load) or _bytes(row["available_kv_gib"]),
        other_bytes=_other(row, total),
        activation_bytes=_bytes(row["activation_gib"]),
        non_torch_bytes=_bytes(row["non_torch_gib"]),
        graph_bytes=_bytes(row["graphs_gib"]),
        logged_weights=_bytes(row["weights_gib"]),
    )


def _least_stage(row: dict[str, str], load: Load) -> int | None:
    """What the smallest stage had: the GiB that are printed are those of the first, the tokens follow the
    smallest (C026, C027)."""
    if load.stages == 1 or not row["kv_tokens"]:
        return None
    layout = load.laid.layout
    return int(row["kv_tokens"]) * max(layout.stage_bytes) // load.laid.paging.block_tokens


def _logged_load(row: dict[str, str]) -> Load:
    shape = shape_named(row["config"])
    if row["quantization"] == "fp8" and shape.quantization is None:
        shape = stored_in_fp8(shape)
    major, minor = row["capability"].split(".")
    options = EngineOptions(
        tensor_parallel=int(row["tensor_parallel"]),
        pipeline_parallel=int(row["pipeline_parallel"] or 1),
        dtype=row["dtype"] or None,
        context_tokens=int(row["max_model_len"]) if row["max_model_len"] else None,
        max_num_seqs=int(row["max_num_seqs"]),
        max_num_batched_tokens=int(row["max_num_batched_tokens"]),
    )
    version = row["engine_version"]
    laid = lay_out(
        shape,
        device=Device(compute_capability=(int(major), int(minor))),
        options=options,
        engine_version=_known_layout(version),
    )
    load = Load(
        laid=laid,
        weights=_weights(shape, laid),
        graph_sizes=() if row["eager"] == "True" else _sizes(51, laid),
        rules=memory_rules_for(version),
        second_runner=_second_runner(version, shape),
        adapters=None if row["weights_gib"] else adapters_of(int(row["lora_slots"] or 0)),
    )
    logged = _bytes(row["weights_gib"])
    # what is logged has the tables in it
    return replace(load, weights=logged - load.position_tables) if logged else load


def adapters_of(slots: int, *, rank: int = 16) -> Adapters | None:
    """What holds so many slots, None for none."""
    return Adapters(slots=slots, rank=rank) if slots else None


def shape_named(name: str) -> ModelShape:
    """The shape of a model of tests/data/log_configs.jsonl or of the catalogue."""
    if name in _log_configs():
        return parse_config(_log_configs()[name])
    entry = find(name)
    assert entry is not None, name
    return parse_config(entry.config, hf_quant_config=entry.hf_quant_config)


@cache
def _log_configs() -> dict[str, dict[str, Any]]:
    lines = map(json.loads, (DATA / "log_configs.jsonl").read_text().splitlines())
    return {line["name"]: line["config"] for line in lines}


def _known_layout(version: str) -> str:
    """Layouts of older engines are not known; of what is asked here none depends on them."""
    try:
        return gpu_rules_for(version).version
    except UnknownEngineVersionError:
        return _OLDEST_GPU_RULES


def _second_runner(version: str, shape: ModelShape) -> bool:
    try:
        return gpu_rules_for(version).second_runner(shape.architecture)
    except UnknownEngineVersionError:
        return False


def _config_of(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The config.json of a row as it was started, and its name."""
    name, patch = f"{row['config']}_config.json", row.get("patch") or {}
    if not row["engine"].get("language_model_only"):
        return name, {**published_configs()[name], **patch}
    apart = f"{row['config']}{_WITHOUT_ENCODER}_config.json"
    if apart in published_configs():
        return apart, {**published_configs()[apart], **patch}
    whole = published_configs()[name]
    architectures = [
        each.replace("ForConditionalGeneration", "ForCausalLM") for each in whole["architectures"]
    ]
    return name, {**whole["text_config"], "architectures": architectures, **patch}


def _weights(shape: ModelShape, laid: LaidOut) -> int:
    options = laid.settled.options
    return max(
        weight_bytes(
            shape,
            dtype=laid.settled.dtype,
            tensor_parallel=options.tensor_parallel,
            pipeline_parallel=options.pipeline_parallel,
            capability=laid.settled.device.compute_capability,
        )
    )


def _sizes(count: int, laid: LaidOut) -> tuple[int, ...]:
    """The engine's own list, which is longer for some architectures (gpt-oss: up to 1024 tokens)."""
    settled = laid.settled
    sizes = captured_sizes(sequences=settled.max_num_seqs, tokens=settled.max_num_batched_tokens)
    more = tuple(sizes[-1] + 16 * step for step in range(1, count - len(sizes) + 1)) if sizes else ()
    return (sizes + more)[:count]


def _kind(load: Load) -> str:
    shape = load.shape
    return "other" if load.expert_widths[0] or shape.latent or shape.recurrent else "dense"


def _other(row: dict[str, str], total: float) -> int | None:
    parts = [row[name] for name in ("free_at_start_gib", "weights_gib", "non_torch_gib", "activation_gib")]
    if not all(parts):
        return None
    free, weights, non_torch, activation = map(float, parts)
    graphs = float(row["graphs_gib"] or 0)
    return int(total + (graphs - free + weights + non_torch + activation) * GIB)


def _bytes(text: str) -> int | None:
    return int(float(text) * GIB) if text else None
