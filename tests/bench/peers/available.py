"""What public estimators say is left for the KV cache of a card, each by its own constants.

Every one is told the bytes of the weights that the engine loaded and the utilization of the start in place
of its own, so that what is compared is what it takes for the rest. GiB of one card.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tonnage.models import ModelShape, Trait

_MIB: Final = 1 / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A start as an estimator is told it. `stated_gib` is the size by which the card is sold."""

    total_gib: float
    stated_gib: float
    utilization: float
    weights_gib: float
    tensor: int
    pipeline: int
    tokens: int
    shape: ModelShape


Left = Callable[[Card], float]


def nothing_else(card: Card) -> float:
    """The share less the weights: hf-mem 0.5.6 counts weights and cache and nothing else."""
    return card.total_gib * card.utilization - card.weights_gib


def kaito(card: Card) -> float:
    """kaito-project/kaito@7e16ebe4 pkg/workspace/estimator: 1.02 times the weights, 2.3 GiB and a twentieth
    of them, of the card's size in whole GiB."""
    weights = 1.02 * card.weights_gib
    return round(card.total_gib) * card.utilization - weights - (2.3 + 0.05 * weights)


def gpustack(card: Card) -> float:
    """gpustack/gpustack@0b8e5af2 gpustack/policies/utils.py: 1.2 times the weights and 2 GiB are claimed;
    the rest of the share is what it implies."""
    return card.total_gib * card.utilization - (1.2 * card.weights_gib + 2)


_PLANNER_ACTIVATIONS: Final = (
    ("Llama", 1.89), ("Qwen2Moe", 2.47), ("Qwen3Moe", 2.68), ("Qwen2", 2.25), ("Qwen3", 2.21),
    ("Mistral3", 2.10), ("Pixtral", 2.10), ("DeepseekV2", 1.93), ("Granite", 0.85), ("LlavaNext", 0.79),
    ("Mixtral", 1.21), ("Phi3", 1.52), ("Gemma2", 3.65), ("Gemma3", 3.94), ("Gemma", 3.63),
)  # fmt: skip


def llm_d_planner(card: Card) -> float:
    """llm-d-planner 0.3.3 planner/capacity_planner.py, data/configuration/vllm_memory_constants.json: a
    constant for each architecture, made from the logs of the sweep on H100 that are judged here; once for
    all ranks."""
    ranks = card.tensor * card.pipeline
    non_torch = 2.10 if card.tensor >= 2 else 0.07 if card.pipeline > 1 else 0.27
    architecture = card.shape.architecture
    found = next((gib for word, gib in _PLANNER_ACTIVATIONS if architecture.startswith(word)), None)
    if found is None:
        found = 2.5 if card.shape.experts_per_token and Trait.MULTIMODAL not in card.shape.traits else 2.0
    return card.total_gib * card.utilization - card.weights_gib - found / ranks - non_torch


_WIDE: Final = {"DeepseekV2", "DeepseekV3", "Qwen3Moe", "Qwen2Moe", "Mixtral", "GptOss", "Gemma4", "Kimi"}
_FACTORS: Final = {1: (11, 22, 10), 2: (6.5, 13, 6), 4: (5, 10, 5), 8: (5, 10, 5)}
_NCCL_MIB: Final = {1: 0, 2: 342, 4: 392, 8: 392}


def aiconfigurator(card: Card) -> float:
    """aiconfigurator-core 0.12.0 sdk/memory.py and backends/base_backend.py `_get_memory_usage`: heads times
    tokens times a factor, NCCL, 3.5 GiB for the rest; of the size by which the card is sold."""
    shape = card.shape
    llama, wide, other = _FACTORS[card.tensor]
    name = shape.architecture
    factor = llama if name.startswith("Llama") else wide if any(map(name.startswith, _WIDE)) else other
    width = shape.num_attention_heads * (shape.head_elements // 2)
    activation = max(2 * card.tokens * width * factor / 2**30, 70 * _MIB)
    rest = activation + _NCCL_MIB[card.tensor] * _MIB + 3.5
    return card.stated_gib * card.utilization - card.weights_gib - rest


ESTIMATORS: Final[dict[str, Left]] = {
    "llm-d-planner": llm_d_planner,
    "aiconfigurator": aiconfigurator,
    "KAITO": kaito,
    "GPUStack": gpustack,
    "share less weights (hf-mem)": nothing_else,
}


def card_of(*, start: Any, stated_gib: float) -> Card:
    """A start of the tests as these estimators are told it."""
    load, gib = start.load, 2**30
    return Card(
        total_gib=start.total_bytes / gib,
        stated_gib=stated_gib,
        utilization=start.share,
        weights_gib=start.stated_weights / gib,
        tensor=load.tensor,
        pipeline=load.stages,
        tokens=load.tokens,
        shape=load.shape,
    )
