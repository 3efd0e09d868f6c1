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
from unit.models.samples import DATA, published_configs, published_quantization

ENGINE_VERSION: Final = "0.32.0"
"""The engine that made the rows."""

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
