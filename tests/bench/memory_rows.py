"""The oracle's rows as the bench puts them: to an estimator, and to our own `fit`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from bench.peers.question import Question
from tonnage.models import (
    ChunkedLocal,
    ConfigError,
    FullAttention,
    LatentAttention,
    ModelShape,
    RecurrentState,
    SlidingWindow,
    TokenBytes,
    parse_config,
)
from tonnage.planning.fit import Device, EngineOptions
from unit.models.samples import DATA, published_configs, published_quantization

GIB: Final = 2**30
ENGINE_VERSION: Final = "0.32.0"
"""The engine that made the rows."""

CARD_BYTES: Final = {
    "NVIDIA H100 80GB HBM3": 80 * GIB,
    "NVIDIA A100-SXM4-80GB": 80 * GIB,
    "NVIDIA B200": 178 * GIB,
}
"""Memory of the cards in the rows: it decides default batch sizes."""

PLAIN: Final = "full attention"
WINDOW: Final = "window or chunk"
LATENT: Final = "latent (MLA)"
STATE: Final = "recurrent state"
OTHER: Final = "other"
KINDS: Final = (PLAIN, WINDOW, LATENT, STATE, OTHER)

_SPECS: Final = {
    FullAttention: PLAIN,
    SlidingWindow: WINDOW,
    ChunkedLocal: WINDOW,
    LatentAttention: LATENT,
    TokenBytes: LATENT,
    RecurrentState: STATE,
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
        specs = [spec for spec, _ in self.shape.cache_runs] if self.shape else []
        kinds = {_SPECS.get(type(spec), OTHER) for spec in specs}
        return next((kind for kind in reversed(KINDS) if kind in kinds), OTHER)


def read_rows() -> list[Row]:
    """The lines of tests/data/kv_oracle.jsonl that state a token figure, with their configs."""
    lines = [json.loads(line) for line in (DATA / "kv_oracle.jsonl").read_text().splitlines()]
    configs = published_configs()
    return [_row(line, configs) for line in lines if line["status"] == "ok" and line.get("tokens")]


def _row(line: dict[str, Any], configs: dict[str, dict[str, Any]]) -> Row:
    question = Question(
        model=line["model"],
        architecture=line["architecture"],
        config=configs[line["config"]],
        hf_quant_config=published_quantization(line["config"]),
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
    major, minor = line["platform"].removeprefix("cuda:").split(".")
    name = line["device"]
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
