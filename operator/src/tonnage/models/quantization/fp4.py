"""Formats with a scale for every 16 or 32 inputs: NVFP4, MXFP4 and MXFP8.

vllm/model_executor/layers/quantization/modelopt.py, mxfp4.py, compressed_tensors (0.32.0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from tonnage.models.parameters import MODEL, Dimension, Parameter, Part, Rounding, Tile, whole
from tonnage.models.quantization.formats import (
    FLOAT32,
    expert_vectors,
    inputs,
    pair,
    shards,
    vector,
)
from tonnage.models.quantization.fp8 import FP8, fp8_weight
from tonnage.models.schemes import Experts, Matrix, Unquantized, bias_of

NVFP4_GROUP: Final = 16
MX_GROUP: Final = 32
_PACKED: Final = "uint8"
_PER_BYTE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvfp4:
    """Two values in a byte, an FP8 scale for 16 of them, a scale for each part of a fused layer.

    `input_scale` is the element of the inputs' scales of linear layers, None where they have none. Experts
    always have them, in float32. A kernel that needs the input scales of all experts holds those of other
    ranks too (fused_moe/oracle/nvfp4.py `is_global_sf_supported_for_nvfp4_backend`: FlashInfer's, on
    Blackwell): they are a few bytes per expert and counted everywhere.
    """

    input_scale: str | None = FLOAT32
    global_inputs: bool = True

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales of groups, of parts and of inputs, bias. Raises `ConfigError`."""
        rows = Dimension(matrix.rows)
        inward = () if self.input_scale is None else (vector(self.input_scale, len(matrix.rows)),)
        return (
            Parameter(_PACKED, (rows, inputs(matrix, _PER_BYTE))),
            vector(FLOAT32, len(matrix.rows)),
            Parameter(FP8, (rows, inputs(matrix, NVFP4_GROUP))),
            *inward,
            *bias_of(matrix),
        )

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """As `matrix` for every expert; groups that fill no 16 inputs have no scale."""
        scales = expert_vectors(experts, shards(experts), 1)
        return (
            *pair(experts, _PACKED, per=_PER_BYTE),
            *pair(experts, FP8, per=NVFP4_GROUP),
            *scales,
            *(self._everywhere(experts) if self.global_inputs else scales),
        )

    def _everywhere(self, experts: Experts) -> tuple[Parameter, Parameter]:
        width = Dimension((whole(shards(experts)),))
        count = Dimension((whole(experts.count),))
        return Parameter(FLOAT32, (count, width)), Parameter(FLOAT32, (count,))


class Mxfp8:
    """A byte per value and one for the scale of 32 of them."""

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, bias. Raises `ConfigError`."""
        scales = Parameter("uint8", (Dimension(matrix.rows), inputs(matrix, MX_GROUP)))
        return (fp8_weight(matrix), scales, *bias_of(matrix))

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights and scales."""
        scales = pair(experts, "uint8", per=MX_GROUP, rounding=Rounding.EXACT)
        return (*pair(experts, FP8), *scales)


class Mxfp4:
    """Two values in a byte, and one for the scale of 32 of them."""

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, bias. Raises `ConfigError`."""
        rows = Dimension(matrix.rows)
        return (
            Parameter(_PACKED, (rows, inputs(matrix, _PER_BYTE))),
            Parameter("uint8", (rows, inputs(matrix, MX_GROUP))),
            *bias_of(matrix),
        )

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights and scales."""
        return (*pair(experts, _PACKED, per=_PER_BYTE), *pair(experts, "uint8", per=MX_GROUP))


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedMxfp4:
    """MXFP4 experts whose sizes are rounded up to what the kernel works on; other layers are not quantized.

    fused_moe/oracle/mxfp4.py `mxfp4_round_up_hidden_size_and_intermediate_size`: the intermediate size of a
    rank to 128 whatever the kernel, the hidden size to 256 or, where the kernel is another, to `tile`.
    """

    tile: Tile = Tile.NONE

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """As it is."""
        return Unquantized().matrix(matrix)

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights, scales, and biases in the model's dtype."""
        hidden = self._hidden(experts)
        intermediate = replace(experts.width, multiple=128)
        inward = Dimension((intermediate,) * shards(experts))
        outward = Dimension((hidden,))
        tensors = [
            Parameter("uint8", dimensions, experts.count)
            for per in (_PER_BYTE, MX_GROUP)
            for dimensions in (
                (inward, Dimension((hidden,), per)),
                (outward, Dimension((intermediate,), per)),
            )
        ]
        if experts.bias:
            tensors += [Parameter(MODEL, (dimension,), experts.count) for dimension in (inward, outward)]
        return tuple(tensors)

    def _hidden(self, experts: Experts) -> Part:
        if self.tile is Tile.NONE:
            return replace(whole(experts.hidden), multiple=256)
        return replace(whole(experts.hidden), tile=self.tile)
