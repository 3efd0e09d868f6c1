"""LoRA adapters that an engine is to hold: slots beside the weights, and copies in main memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tonnage.models import ModelShape
from tonnage.models.parameters import Parameter
from tonnage.planning.weights import plain_size_of

_ALLOCATED: Final = 1.09
_MOST_PACKED: Final = 8
_ELEMENT_BYTES: Final = 2
DEFAULT_RANK: Final = 16
RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""vllm/config/lora.py 0.32 `MaxLoRARanks`; the default of `max_lora_rank` is 16, that of `max_loras` 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """`slots` adapters of at most `rank` are held beside the weights (`--max-loras`, `--max-lora-rank`) and
    `kept` of them in main memory (`--max-cpu-loras`). `by_active`: CUDA graphs are captured for every power
    of two of adapters that are active (`--specialize-active-lora`)."""

    slots: int = 1
    rank: int = DEFAULT_RANK
    kept: int = 1
    by_active: bool = False

    @property
    def graph_cases(self) -> int:
        """How often each CUDA graph is captured: without adapters and with them, and for each power of two
        where they are told apart (vllm/v1/cudagraph_dispatcher.py 0.32 `_get_lora_cases`)."""
        return 2 + (self.slots.bit_length() if self.by_active else 0)

    def host_bytes(self, shape: ModelShape) -> int:
        """What one rank keeps of adapters in main memory: whole ones, which no rank shares."""
        return self.kept * slot_bytes(shape, rank=self.rank)


@lru_cache(maxsize=64)
def slot_bytes(
    shape: ModelShape,
    *,
    rank: int,
    tensor: int = 1,
    stages: int = 1,
    capability: tuple[int, int] | None = None,
) -> int:
    """Bytes of one slot on one rank: two factors for every matrix of every layer, those that were joined and
    all routed experts each with its own, and for the token table and the output head, which no rank shares
    (vllm/lora/layers 0.32: base_linear.py, column_parallel_linear.py, fused_moe.py,
    vocab_parallel_embedding.py, logits_processor.py), and 9 % that the allocator rounds up.

    Measured: 79.0 MiB of Qwen3-4B (C152 to C155: 78.9 by this law), 93.2 of Qwen3-8B on an H200
    (qwen3-8b-lora-1 and -8: 101.1), both at rank 16.
    """
    sides = sum(
        run.layers * _sides(parameter, tensor=tensor, capability=capability)
        for run in shape.layers
        for parameter in run.layer.parameters
    )
    vocabulary = 2 * (shape.vocab_size + shape.hidden_size)
    return int(_ALLOCATED * _ELEMENT_BYTES * rank * (-(-sides // stages) + vocabulary))


def _sides(parameter: Parameter, *, tensor: int, capability: tuple[int, int] | None) -> int:
    """Rows and columns of a matrix's factors for rank 1, 0 of what is no matrix: vectors, and scales, of
    which one stands for more elements than any word packs."""
    dimensions = parameter.dimensions
    if len(dimensions) != 2 or max(each.per for each in dimensions) > _MOST_PACKED:
        return 0
    joined, other = sorted(dimensions, key=lambda each: -len(each.parts))
    both = len(joined.parts) * plain_size_of(other, tensor, capability=capability)
    both += plain_size_of(joined, tensor, capability=capability)
    return both * parameter.count * max(1, parameter.experts)
