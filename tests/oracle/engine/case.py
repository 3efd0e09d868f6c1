"""What the engine's code is asked and what it answers. Imports nothing but the standard library: both sides
use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that the CUDA platform pretends to have. `memory_bytes` is its total: with the name it decides
    defaults of the engine."""

    compute_capability: tuple[int, int]
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One start of the engine: a model, a card (None for the CPU platform), the engine's arguments by their
    names in `EngineArgs`, and the bytes of each rank's KV cache.

    `hf_quant_config` is ModelOpt's file beside the config. `lengths` are tokens of requests whose number the
    cache's capacity is asked for.
    """

    config: Mapping[str, Any]
    hf_quant_config: Mapping[str, Any] | None = None
    card: Card | None
    arguments: Mapping[str, Any]
    kv_bytes: int
    lengths: tuple[int, ...] = ()

    @property
    def platform(self) -> str:
        """Cases of one platform are answered by one process."""
        if self.card is None:
            return "cpu"
        major, minor = self.card.compute_capability
        return f"cuda:{major}.{minor}"

    @property
    def text(self) -> str:
        """One line of JSON, the same for equal cases."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the engine made of a case.

    `refused` is the engine's own error, "" where it would start; `stage` says how far it came: "arguments",
    "model", "cache", "started", or "process" where there was no answer in time. Bytes of a block are those of
    the first stage. Weights are those of the fullest rank as they are created, before kernels repack them,
    and in one byte where the engine is to store them so. `requests` are how many requests of each length of
    the case the cache holds at once. `settings` are what the engine made of its arguments.
    """

    refused: str = ""
    stage: str
    weight_bytes: int | None = None
    backends: tuple[str, ...] = ()
    kv_dtype_served: bool = False
    block_tokens: int | None = None
    blocks: int | None = None
    block_bytes: int | None = None
    tokens: int | None = None
    concurrency: float | None = None
    requests: Mapping[int, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def started(self) -> bool:
        """Whether the engine would have started."""
        return self.stage == "started"


def case_from(text: str) -> Case:
    """The case of one line."""
    fields = json.loads(text)
    card = fields["card"]
    if card is not None:
        fields["card"] = Card(**{**card, "compute_capability": tuple(card["compute_capability"])})
    return Case(**{**fields, "lengths": tuple(fields["lengths"])})


def answer_from(text: str) -> Answer:
    """The answer of one line; JSON has no integer keys and no tuples."""
    fields = json.loads(text)
    requests = {int(length): count for length, count in fields["requests"].items()}
    return Answer(**{**fields, "backends": tuple(fields["backends"]), "requests": requests})


def line_of(answer: Answer) -> str:
    """One line of JSON."""
    return json.dumps(asdict(answer), sort_keys=True)
