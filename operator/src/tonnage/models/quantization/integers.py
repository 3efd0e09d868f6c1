"""Integer weights as compressed-tensors checkpoints store them.

vllm/model_executor/layers/quantization/compressed_tensors/schemes and compressed_tensors_moe (0.32.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.parameters import MODEL, Dimension, Parameter, Rounding, whole
from tonnage.models.quantization.formats import (
    FLOAT32,
    expert_biases,
    inputs,
    pair,
    vector,
)
from tonnage.models.quantization.fp8 import channel_scales
from tonnage.models.schemes import Experts, Matrix, bias_of, experts_inward

WORD_BITS: Final = 32
WORD: Final = "int32"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedInt:
    """`bits` wide values in 32-bit words, scales in the model's dtype for `group` inputs (None: for all of
    them), zero points packed along the outputs unless `symmetric`, and the shape that the weight had."""

    bits: int
    group: int | None
    symmetric: bool

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, shape, zero points, bias. Raises `ConfigError`."""
        per = WORD_BITS // self.bits
        rows = Dimension(matrix.rows)
        groups = Dimension((whole(1),)) if self.group is None else inputs(matrix, self.group)
        zeros = () if self.symmetric else (Parameter(WORD, (Dimension(matrix.rows, per), groups)),)
        return (
            Parameter(WORD, (rows, Dimension((matrix.columns,), per))),
            Parameter(MODEL, (rows, groups)),
            vector("int64", 2),
            *zeros,
            *bias_of(matrix),
        )

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """As `matrix` for every expert; the shapes are in the model's dtype."""
        per = WORD_BITS // self.bits
        shape = vector(MODEL, 2, experts=experts.count)
        return (
            *pair(experts, WORD, per=per, rounding=Rounding.EXACT),
            *expert_biases(experts),
            *self._scales(experts),
            *(() if self.symmetric else self._zeros(experts, per)),
            shape,
            shape,
        )

    def _scales(self, experts: Experts) -> tuple[Parameter, Parameter]:
        hidden, intermediate = self._groups(experts)
        return (
            Parameter(MODEL, (experts_inward(experts), hidden), experts.count),
            Parameter(MODEL, (Dimension((whole(experts.hidden),)), intermediate), experts.count),
        )

    def _zeros(self, experts: Experts, per: int) -> tuple[Parameter, Parameter]:
        hidden, intermediate = self._groups(experts)
        inward = Dimension(experts_inward(experts).parts, per)
        outward = Dimension((whole(experts.hidden),), per)
        return (
            Parameter(WORD, (inward, hidden), experts.count),
            Parameter(WORD, (outward, intermediate), experts.count),
        )

    def _groups(self, experts: Experts) -> tuple[Dimension, Dimension]:
        if self.group is None:
            one = Dimension((whole(1),))
            return one, one
        return (
            Dimension((whole(experts.hidden),), self.group),
            Dimension((experts.width,), self.group, Rounding.EXACT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8:
    """A byte per value with a float32 scale for each output, or for each part of a fused layer.

    `static` inputs have one scale for the whole layer, and a zero point unless `symmetric`.
    """

    per_output: bool
    static: bool
    symmetric: bool = True

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, input scale and zero point, bias."""
        rows = Dimension(matrix.rows)
        scales = Parameter(FLOAT32, (rows,)) if self.per_output else vector(FLOAT32, len(matrix.rows))
        static = (vector(FLOAT32, 1),) if self.static else ()
        zero = (vector("int8", 1),) if self.static and not self.symmetric else ()
        weight = Parameter("int8", (rows, Dimension((matrix.columns,))))
        return (weight, scales, *static, *zero, *bias_of(matrix))

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights, biases, scales of outputs."""
        return (*pair(experts, "int8"), *expert_biases(experts), *channel_scales(experts))
