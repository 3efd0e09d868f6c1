"""Weight bytes of each rank: exactly what the engine allocates before it repacks anything."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Final

from tonnage.models import ELEMENT_BYTES, MODEL, ROUTER, Dimension, Layer, ModelShape, Parameter, Part, Split


class IndivisibleError(ValueError):
    """A dimension that ranks cannot divide; the engine refuses such a start."""


def weight_bytes(
    shape: ModelShape,
    *,
    dtype: str,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    expert_parallel: bool = False,
    float32_routers: bool = False,
) -> tuple[int, ...]:
    """Bytes of the parameters of one rank of each pipeline stage.

    `float32_routers`: the card has no kernels that compute routers in float32 from the model's dtype.

    Sizes before `process_weights_after_loading`, as `sum(p.numel() * p.element_size())` counts them. Raises
    `IndivisibleError`.
    """
    rules = _Ranks(
        dtype=dtype, tensor=tensor_parallel, experts=expert_parallel, float32_routers=float32_routers
    )
    outside = shape.outside
    stages = []
    last = pipeline_parallel - 1
    for number, layers in enumerate(stage_layers(shape, pipeline_parallel)):
        held = [outside.every]
        if number == 0:
            held.append(outside.first)
        if number == last:
            held.append(outside.last)
        if number == 0 or (number == last and outside.tied):
            held.append(outside.embedding)
        total = sum(rules.bytes_of(parameters) for parameters in held)
        stages.append(total + sum(rules.bytes_of(layer.parameters) * count for layer, count in layers))
    return tuple(stages)


def stage_layers(shape: ModelShape, stages: int) -> list[list[tuple[Layer, int]]]:
    """(layer, how many of it) for each pipeline stage, in model order."""
    total = sum(run.layers for run in shape.layers)
    bounds = stage_bounds(total, stages)
    found: list[list[tuple[Layer, int]]] = [[] for _ in range(stages)]
    position = 0
    for run in shape.layers:
        for stage, (begin, end) in enumerate(bounds):
            count = min(position + run.layers, end) - max(position, begin)
            if count > 0:
                found[stage].append((run.layer, count))
        position += run.layers
    return found


def stage_bounds(layers: int, stages: int) -> list[tuple[int, int]]:
    """[begin, end) of each stage: remaining layers go to the stages before the last, from the back
    (vllm/distributed/utils.py 0.32 `get_pp_indices`)."""
    sizes = [layers // stages] * stages
    for extra in range(2, layers % stages + 2):
        sizes[-extra] += 1
    ends = [sum(sizes[: stage + 1]) for stage in range(stages)]
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]


class _Ranks:
    """Counts bytes for one set of ranks."""

    def __init__(self, *, dtype: str, tensor: int, experts: bool, float32_routers: bool) -> None:
        model_bytes = ELEMENT_BYTES[dtype]
        router_bytes = ELEMENT_BYTES["float32"] if float32_routers else model_bytes
        self._element_bytes: Final = {**ELEMENT_BYTES, MODEL: model_bytes, ROUTER: router_bytes}
        self._tensor: Final = tensor
        self._experts: Final = experts

    def bytes_of(self, parameters: Iterable[Parameter]) -> int:
        return sum(self._bytes(parameter) for parameter in parameters)

    def _bytes(self, parameter: Parameter) -> int:
        element = self._element_bytes[parameter.element]
        tensor, copies = self._tensor, parameter.count
        if parameter.experts:
            spread = self._experts and tensor > 1
            copies *= -(-parameter.experts // tensor) if spread else parameter.experts
            tensor = 1 if spread else tensor
        return element * copies * prod(size_of(d, tensor) for d in parameter.dimensions)


def size_of(dimension: Dimension, ranks: int) -> int:
    """Stored elements of a dimension on one of `ranks`."""
    return sum(-(-_part(part, ranks) // dimension.per) for part in dimension.parts)


def _part(part: Part, ranks: int) -> int:
    if part.split is Split.WHOLE:
        return _round_up(part.size, part.multiple)
    if part.split is Split.HEADS:
        return part.size // part.heads * _shared(part.heads, ranks)
    if part.split is Split.VOCABULARY:
        return _divide(_round_up(part.size, part.multiple), ranks)
    if part.heads > 1 and part.heads % ranks:
        raise IndivisibleError(f"{part.heads} heads do not divide among {ranks} ranks")
    return _round_up(_divide(part.size, ranks), part.multiple)


def _shared(heads: int, ranks: int) -> int:
    if ranks > heads:
        if ranks % heads:
            raise IndivisibleError(f"{ranks} ranks cannot hold copies of {heads} heads evenly")
        return 1
    return _divide(heads, ranks)


def _divide(size: int, ranks: int) -> int:
    if size % ranks:
        raise IndivisibleError(f"{size} does not divide among {ranks} ranks")
    return size // ranks


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
