"""A start whose bytes are asked for, and the widths of its tensors on one rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

from tonnage.engines import GpuRules
from tonnage.engines.overheads import MemoryRules, memory_rules_for
from tonnage.models import (
    ELEMENT_BYTES,
    ChunkedLocal,
    Dimension,
    FullAttention,
    Layer,
    ModelShape,
    Parameter,
    SlidingWindow,
)
from tonnage.planning.adapters import Adapters, slot_bytes
from tonnage.planning.fit import LaidOut
from tonnage.planning.weights import plain_size_of

_WITH_HEADS = (FullAttention, SlidingWindow, ChunkedLocal)
_SCALES = frozenset({"float32", "uint8", "int32"})
"""Elements of tensors that stand beside a quantized matrix, or pack it."""
_ASSUMED_EXPERTS_PER_TOKEN = 8
_LINKED_MAJORS = frozenset({9, 10})
_PACKED_EXPERTS = frozenset({"mxfp4", "gpt_oss_mxfp4"})


@dataclass(frozen=True, kw_only=True)
class Load:
    """A start on GPUs.

    `weights` are bytes of the parameters on the fullest rank; `graph_sizes` the batch sizes of CUDA graphs,
    none where the engine runs eagerly. `rules` are the engine's memory rules and `second_runner` says which
    of its model runners serves; both follow from the engine version where they are not given. `adapters`
    are held beside the weights; a `cold` start compiles what others load.
    """

    laid: LaidOut
    weights: int
    graph_sizes: tuple[int, ...] = ()
    rules: MemoryRules
    second_runner: bool
    adapters: Adapters | None = None
    cold: bool = True

    @property
    def shape(self) -> ModelShape:
        """The model."""
        return self.laid.settled.shape

    @property
    def tensor(self) -> int:
        """Tensor parallel size."""
        return self.laid.settled.options.tensor_parallel

    @property
    def stages(self) -> int:
        """Pipeline parallel size."""
        return self.laid.settled.options.pipeline_parallel

    @property
    def ranks(self) -> int:
        """Ranks of one replica."""
        return self.tensor * self.stages

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability of the cards."""
        found = self.laid.settled.device.compute_capability
        if found is None:
            raise ValueError("a budget is of GPUs; CPU nodes have none")
        return found

    @property
    def linked(self) -> bool:
        """Whether cards of this kind come with NVLink; those that do not take no more for it."""
        return self.capability == (8, 0) or self.capability[0] in _LINKED_MAJORS

    @property
    def tokens(self) -> int:
        """Tokens of one step."""
        return self.laid.settled.max_num_batched_tokens

    @property
    def sequences(self) -> int:
        """Requests of one step."""
        return self.laid.settled.max_num_seqs

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of what is computed."""
        return ELEMENT_BYTES[self.laid.settled.dtype]

    @property
    def full_graphs(self) -> int:
        """Graphs of whole decode steps: one for each size up to the sequences of a step (0.26 captures 51 and
        35 of them with 256 sequences: "PIECEWISE=51 (largest=512), FULL=35 (largest=256)")."""
        return sum(size <= self.sequences for size in self.graph_sizes)

    @property
    def layers(self) -> int:
        """Layers of the fullest stage."""
        return -(-sum(run.layers for run in self.shape.layers) // self.stages)

    @cached_property
    def wide_elements(self) -> float:
        """Elements that one token's way through the widest matrix outside routed experts holds on one rank:
        one and a half times its width where gate and up projection are joined, which act into half of it;
        twice where what widens is as wide as what narrows again, as without a gate."""
        return max(map(self._wide_in, self._layers), default=0.0)

    def _wide_in(self, layer: Layer) -> float:
        widths = [
            max(self._width(dimension) for dimension in parameter.dimensions)
            for parameter in layer.parameters
            if not parameter.experts and len(parameter.dimensions) > 1 and parameter.element not in _SCALES
        ]
        widest = max(widths, default=0)
        return widest * (2.0 if widths.count(widest) > 1 else 1.5)

    @cached_property
    def expert_widths(self) -> tuple[int, int]:
        """Elements of a token in one routed expert, where it enters and where it leaves: the wider side of
        the larger and of the smaller of its matrices. Both 0 where there are no experts."""
        sides = sorted(
            (prod(found), max(found))
            for parameter in self._parameters()
            if parameter.experts and len(parameter.dimensions) > 1
            for found in (tuple(self._width(dimension) for dimension in parameter.dimensions),)
        )
        return (sides[-1][1], sides[0][1]) if sides else (0, 0)

    @property
    def position_tables(self) -> int:
        """Bytes of cosine and sine of every position that the model knows, whatever is served of them: one
        table for each size of heads, as wide as a head (rotary_embedding/base.py 0.32
        `_compute_cos_sin_cache`)."""
        sizes = {spec.head_size for spec, _ in self.shape.cache_runs if isinstance(spec, _WITH_HEADS)}
        return self.shape.max_context_tokens * sum(sizes) * self.element_bytes

    @property
    def adapter_bytes(self) -> int:
        """Slots of LoRA adapters."""
        if self.adapters is None:
            return 0
        return self.adapters.slots * slot_bytes(
            self.shape,
            rank=self.adapters.rank,
            tensor=self.tensor,
            stages=self.stages,
            capability=self.capability,
        )

    @property
    def graph_cases(self) -> int:
        """How often each CUDA graph is captured."""
        return 1 if self.adapters is None else self.adapters.graph_cases

    @cached_property
    def experts_per_token(self) -> int:
        """Routed experts that compute a token."""
        most = max((parameter.experts for parameter in self._parameters()), default=0)
        return min(most, self.shape.experts_per_token or _ASSUMED_EXPERTS_PER_TOKEN)

    @property
    def packed_experts(self) -> bool:
        """Whether experts stay in four bits and are computed by kernels that keep no workspace."""
        return self.shape.quantization in _PACKED_EXPERTS

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        """The distinct ones: equal layers are one object (`runs_of`)."""
        return tuple({id(run.layer): run.layer for run in self.shape.layers}.values())

    def _parameters(self) -> Iterator[Parameter]:
        for layer in self._layers:
            yield from layer.parameters

    def _width(self, dimension: Dimension) -> int:
        return plain_size_of(dimension, self.tensor, capability=self.capability)


def load_of(
    laid: LaidOut,
    *,
    weights: int,
    graph_sizes: tuple[int, ...] = (),
    rules: MemoryRules | None = None,
    second_runner: bool | None = None,
    adapters: Adapters | None = None,
) -> Load:
    """The start of an engine whose version decides its memory rules and model runner unless they are given.

    Raises `UnknownEngineVersionError` for a version whose memory is not known.
    """
    engine = laid.settled.rules
    if second_runner is None:
        second_runner = isinstance(engine, GpuRules) and engine.second_runner(laid.settled.shape.architecture)
    return Load(
        laid=laid,
        weights=weights,
        graph_sizes=graph_sizes,
        rules=rules or memory_rules_for(engine.version),
        second_runner=second_runner,
        adapters=adapters,
    )
