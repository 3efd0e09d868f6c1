"""Weight bytes of each rank: exactly what the engine allocates before it repacks anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd, prod
from typing import Final

from tonnage.models import (
    ELEMENT_BYTES,
    MODEL,
    ROUTER,
    Dimension,
    Layer,
    ModelShape,
    Parameter,
    Part,
    RecurrentState,
    Split,
)
from tonnage.models.parameters import MIN_FITTED, Rounding, Tile

Capability = tuple[int, int]

_HOPPER: Final[Capability] = (9, 0)
_FIRST_WITH_FP8: Final[Capability] = (8, 9)
_NARROW: Final = 512


class IndivisibleError(ValueError):
    """A dimension that ranks cannot divide; the engine refuses such a start."""


def weight_bytes(
    shape: ModelShape,
    *,
    dtype: str,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    expert_parallel: bool = False,
    capability: Capability | None = _HOPPER,
) -> tuple[int, ...]:
    """Bytes of the parameters of one rank of each pipeline stage.

    `capability` is the compute capability of the cards, None for CPU nodes. Sizes are those before
    `process_weights_after_loading`, as `sum(p.numel() * p.element_size())` counts them. Raises
    `IndivisibleError`.
    """
    rules = _Ranks(
        dtype=dtype,
        tensor=tensor_parallel,
        experts=expert_parallel,
        capability=capability,
        cuts_tiles=_cuts_tiles(shape, capability),
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


def stored_in_fp8(shape: ModelShape) -> ModelShape:
    """The shape with the weights of its linear layers in fp8, as the engine stores them when asked to.

    vllm/model_executor/layers/quantization/online/base.py 0.32: linear layers and routed experts of a
    checkpoint that is not quantized, layer by layer while it loads; embeddings and the output head stay. Of
    what a layer holds, routers, gates and convolutions stay too: they are told by their narrow side, so that
    the bytes are a little too many rather than too few. Mixers of Mamba 1 stay whole
    (layers/mamba/mamba_mixer.py passes no `quant_config` on); they are told by the width of their states.
    """
    known: dict[int, Layer] = {}
    runs = []
    for run in shape.layers:
        layer = known.get(id(run.layer))
        if layer is None:
            layer = known[id(run.layer)] = _layer_in_fp8(run.layer)
        runs.append(replace(run, layer=layer))
    return replace(shape, layers=tuple(runs))


def _layer_in_fp8(layer: Layer) -> Layer:
    mixers = [each for each in layer.caches if isinstance(each, RecurrentState) and each.kind == "mamba1"]
    width = max((size for mixer in mixers for state in mixer.tensors for size in _sizes(state)), default=0)
    # Its input matrix makes two such vectors of every token at once.
    parameters = (each if {width, 2 * width} & _sizes(each) else _in_fp8(each) for each in layer.parameters)
    return replace(layer, parameters=tuple(parameters))


def _sizes(parameter: Parameter) -> set[int]:
    return {part.size for dimension in parameter.dimensions for part in dimension.parts}


def _in_fp8(parameter: Parameter) -> Parameter:
    sides = [sum(part.size for part in dimension.parts) for dimension in parameter.dimensions]
    if parameter.element != MODEL or len(sides) < 2 or (not parameter.experts and min(sides) <= _NARROW):
        return parameter
    return replace(parameter, element="float8")


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

    def __init__(
        self, *, dtype: str, tensor: int, experts: bool, capability: Capability | None, cuts_tiles: bool
    ) -> None:
        model_bytes = ELEMENT_BYTES[dtype]
        router_bytes = model_bytes if _has_router_kernels(capability) else ELEMENT_BYTES["float32"]
        self._element_bytes: Final = {**ELEMENT_BYTES, MODEL: model_bytes, ROUTER: router_bytes}
        self._tensor: Final = tensor
        self._experts: Final = experts
        self._capability: Final = capability
        self._cuts_tiles: Final = cuts_tiles
        self._known: Final[dict[int, int]] = {}

    def bytes_of(self, parameters: Sequence[Parameter]) -> int:
        # By identity: equal layers are one object, and the shape holds them as long as this lives.
        known = self._known.get(id(parameters))
        if known is None:
            known = self._known[id(parameters)] = sum(self._bytes(parameter) for parameter in parameters)
        return known

    def _bytes(self, parameter: Parameter) -> int:
        element = self._element_bytes[parameter.element]
        tensor, copies = self._tensor, parameter.count
        if parameter.experts:
            spread = self._experts and tensor > 1
            copies *= -(-parameter.experts // tensor) if spread else parameter.experts
            tensor = 1 if spread else tensor
        if parameter.only_if is not None and not _fills(parameter.only_if, tensor):
            return 0
        return (
            element
            * copies
            * prod(
                size_of(each, tensor, capability=self._capability, cuts_tiles=self._cuts_tiles)
                for each in parameter.dimensions
            )
        )


def size_of(
    dimension: Dimension,
    ranks: int,
    *,
    capability: Capability | None = _HOPPER,
    cuts_tiles: bool = True,
) -> int:
    """Stored elements of a dimension on one of `ranks`, on a GPU of this compute capability; `cuts_tiles`
    says that its kernel takes smaller tiles than the checkpoint's."""
    per = _fitted(dimension, ranks, cuts_tiles=cuts_tiles) if dimension.fits else dimension.per
    total = 0
    for part in dimension.parts:
        share = _part(part, ranks)
        if part.tile is not Tile.NONE:
            share = _round_up(share, tile_multiple(part.tile, capability))
        if dimension.rounding is Rounding.EXACT and _divided(part, ranks) and share % per:
            raise IndivisibleError(f"a rank's share of {share} is not a multiple of {per}")
        total += share
    return total // per if dimension.rounding is Rounding.DOWN else -(-total // per)


def plain_size_of(dimension: Dimension, ranks: int, *, capability: Capability | None) -> int:
    """Elements of a dimension before anything is packed into words or counted by tiles."""
    plain = replace(dimension, per=1, rounding=Rounding.UP, fits=())
    return size_of(plain, ranks, capability=capability)


def tile_multiple(tile: Tile, capability: Capability | None) -> int:
    """The multiple that the kernel works on, before anything is repacked.

    vllm/model_executor/layers/fused_moe/oracle 0.32. mxfp4.py: FlashInfer's CUTLASS kernel on Hopper takes
    multiples of 128, Marlin and TensorRT-LLM's elsewhere 256 (with the optional package triton_kernels,
    Hopper takes any size). unquantized.py: TensorRT-LLM's kernel on Blackwell (10.x) takes multiples of 128.
    """
    if tile is Tile.MXFP4_HIDDEN:
        return 128 if capability == _HOPPER else 256
    if tile is Tile.PLAIN_EXPERTS:
        return 128 if capability is not None and capability[0] == 10 else 1
    return 1


def _has_router_kernels(capability: Capability | None) -> bool:
    """layers/fused_moe/router/gate_linear.py: on 9.0 and 10.x."""
    return capability is not None and (capability == (9, 0) or capability[0] == 10)


def _cuts_tiles(shape: ModelShape, capability: Capability | None) -> bool:
    """Whether a kernel for experts takes smaller tiles than the checkpoint's.

    vllm/model_executor/layers/fused_moe/oracle/fp8.py 0.32: of fp8 only Triton's does, and that needs fp8
    arithmetic (experts/triton_moe.py `_supports_quant_scheme`), which cards before 8.9 lack; Marlin, which
    serves those, does not.
    """
    return shape.quantization != "fp8" or capability is None or capability >= _FIRST_WITH_FP8


def _fitted(dimension: Dimension, ranks: int, *, cuts_tiles: bool) -> int:
    shares = [_part(part, ranks) for part in dimension.fits]
    if shares[0] % dimension.per == 0:
        return dimension.per
    if not cuts_tiles:
        raise IndivisibleError(
            f"a rank's share of {shares[0]} is not a multiple of {dimension.per}, and the kernel for fp8 "
            "experts on this card takes whole tiles"
        )
    per = gcd(dimension.per, *shares)
    if per < MIN_FITTED:
        raise IndivisibleError(f"a rank's share of {shares[0]} leaves tiles of {per}, less than {MIN_FITTED}")
    return per


def _fills(dimension: Dimension, ranks: int) -> bool:
    return all(_part(part, ranks) % dimension.per == 0 for part in dimension.parts)


def _divided(part: Part, ranks: int) -> bool:
    uneven = part.split is Split.EVEN and part.heads % ranks
    return ranks > 1 and part.split is not Split.WHOLE and not uneven


def _part(part: Part, ranks: int) -> int:
    if part.split is Split.WHOLE:
        return _round_up(part.size, part.multiple)
    if part.split is Split.HEADS:
        return part.size // part.heads * _shared(part.heads, ranks)
    if part.split is Split.VOCABULARY:
        return _divide(_round_up(part.size, part.multiple), ranks)
    if part.split is Split.EVEN and part.heads % ranks:
        return part.size
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
