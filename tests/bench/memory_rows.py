"""The oracle's rows as the bench puts them: to an estimator, and to our own `fit`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.peers.question import Question
from tonnage.models import ConfigError, ModelShape, parse_config
from tonnage.planning.fit import Device, EngineOptions

GIB: Final = 2**30
CARDS: Final = {
    "9.0": ("NVIDIA H100 80GB HBM3", 80 * GIB),
    "10.0": ("NVIDIA B200", 180 * GIB),
    "8.0": ("NVIDIA A100-SXM4-80GB", 80 * GIB),
}
"""The card of each compute capability in the rows, and its memory: they decide default batch sizes."""

PLAIN: Final = "full attention"
WINDOW: Final = "window or chunk"
LATENT: Final = "latent (MLA)"
STATE: Final = "recurrent state"
OTHER: Final = "other"
KINDS: Final = (PLAIN, WINDOW, LATENT, STATE, OTHER)

_SPECS: Final = {
    # The engine's names of KV-cache specs, then ours.
    "FullAttentionSpec": PLAIN,
    "SlidingWindowSpec": WINDOW,
    "ChunkedLocalAttentionSpec": WINDOW,
    "MLAAttentionSpec": LATENT,
    "SlidingWindowMLASpec": LATENT,
    "MambaSpec": STATE,
    "FullAttention": PLAIN,
    "SlidingWindow": WINDOW,
    "ChunkedLocal": WINDOW,
    "LatentAttention": LATENT,
    "TokenBytes": LATENT,
    "RecurrentState": STATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the oracle: the question, the engine's answers, and our reading of the model or why there
    is none."""

    question: Question
    engine: dict[str, Any]
    shape: ModelShape | None
    refusal: str

    @property
    def kind(self) -> str:
        """What kind of cache the model keeps: the least plain one of its layers."""
        if self.engine.get("layers") is not None:
            specs = {layer["kind"] for layer in self.engine["layers"]}
        else:
            specs = {type(spec).__name__ for spec, _ in self.shape.cache_runs} if self.shape else set()
        kinds = {_SPECS.get(spec, OTHER) for spec in specs}
        return next((kind for kind in reversed(KINDS) if kind in kinds), OTHER)


def read_rows(folder: Path) -> list[Row]:
    """The lines of `folder`/kv_oracle.jsonl with a token figure, with their configs."""
    configs = json.loads((folder / "model_configs.json").read_text())
    lines = [json.loads(line) for line in (folder / "kv_oracle.jsonl").read_text().splitlines()]
    return [_row(line, configs) for line in lines if line["status"] == "ok" and line.get("tokens")]


def _row(line: dict[str, Any], configs: dict[str, dict[str, Any]]) -> Row:
    name = Path(line["config"]).name
    quantization = configs.get(name.replace("_config.json", "_hf_quant_config.json"))
    question = Question(
        model=line["model"],
        architecture=line["architecture"],
        config=configs[name],
        hf_quant_config=quantization if name.endswith("_config.json") else None,
        tensor_parallel=line["tp"],
        pipeline_parallel=line["pp"],
        kv_dtype=line["engine_args"].get("kv_cache_dtype", "auto"),
        context_tokens=line["max_model_len"],
        kv_bytes=line["available_bytes"],
    )
    try:
        shape = parse_config(question.config, hf_quant_config=question.hf_quant_config)
    except ConfigError as error:
        return Row(question=question, engine=line, shape=None, refusal=error.reason)
    return Row(question=question, engine=line, shape=shape, refusal="")


def device_of(line: dict[str, Any]) -> Device:
    """What the row was computed for."""
    if line["platform"] == "cpu":
        return Device(compute_capability=None)
    capability = line["platform"].removeprefix("cuda:")
    name, memory_bytes = CARDS[capability]
    major, minor = capability.split(".")
    return Device(compute_capability=(int(major), int(minor)), name=name, memory_bytes=memory_bytes)


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
