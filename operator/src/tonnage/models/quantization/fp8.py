"""FP8: `fp8` checkpoints, and what DeepSeek-V4 makes of them.

vllm/model_executor/layers/quantization/fp8.py, models/deepseek_v41/quant_config.py (0.32.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import MIN_FITTED, Dimension, Parameter, Rounding, Split, whole
from tonnage.models.quantization.formats import (
    FLOAT32,
    Format,
    expert_biases,
    expert_vectors,
    pair,
    shards,
    vector,
)
from tonnage.models.quantization.names import listed_exactly, texts
from tonnage.models.quantization.select import Declaration, Module, Selected, unsupported
from tonnage.models.schemes import Experts, Matrix, Scheme, Unquantized, bias_of, experts_inward

FP8: Final = "float8"
PLAIN: Final = Unquantized()
MAX_TILE: Final = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFp8:
    """A scale for each part of a fused layer, and one for its inputs where they are `static`."""

    static: bool

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, weight scales, input scales, bias."""
        weight = fp8_weight(matrix)
        scales = (vector(FLOAT32, len(matrix.rows)),) * (2 if self.static else 1)
        return (weight, *scales, *bias_of(matrix))

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """As `matrix` for every expert; one input scale serves both matrices on the way in."""
        static = expert_vectors(experts, 1, 1) if self.static else ()
        scales = expert_vectors(experts, shards(experts), 1)
        return (*pair(experts, FP8), *expert_biases(experts), *scales, *static)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFp8:
    """A scale for each output; the inputs' scales are made on the fly unless they are `static`."""

    static: bool = False

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, weight scales, input scales, bias."""
        scales = Parameter(FLOAT32, (Dimension(matrix.rows),))
        static = (vector(FLOAT32, len(matrix.rows)),) if self.static else ()
        return (fp8_weight(matrix), scales, *static, *bias_of(matrix))

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """As `matrix` for every expert."""
        return (*pair(experts, FP8), *channel_scales(experts))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFp8:
    """A scale for each tile of `rows` outputs and `columns` inputs.

    `scale` is the element of linear layers' scales. `strict`: parts of fused layers must consist of whole
    tiles, and experts' tiles are never made smaller (compressed-tensors); else the engine lets a fused layer
    end its parts within tiles (linear.py `_maybe_allow_fp8_block_shape_mismatch`) and cuts experts' tiles to
    fit a rank's share (fused_moe/oracle/fp8.py `refine_fp8_moe_block_shape`).
    """

    rows: int
    columns: int
    scale: str = FLOAT32
    strict: bool = False

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, bias. Raises `ConfigError`."""
        fused = len(matrix.rows) > 1
        if fused and self.strict:
            self._check_fused(matrix)
        rounding = Rounding.UP if fused and not self.strict else Rounding.EXACT
        columns = Rounding.EXACT if matrix.columns.split is not Split.WHOLE else Rounding.UP
        scales = (
            Dimension(matrix.rows, self.rows, rounding),
            Dimension((matrix.columns,), self.columns, columns),
        )
        return (fp8_weight(matrix), Parameter(self.scale, scales), *bias_of(matrix))

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights, biases, scales. Raises `ConfigError`."""
        biases = () if self.strict else expert_biases(experts)
        return (*pair(experts, FP8), *biases, *self._expert_scales(experts))

    def _expert_scales(self, experts: Experts) -> tuple[Parameter, Parameter]:
        hidden, intermediate = whole(experts.hidden), experts.width
        fits = () if self.strict else (intermediate, hidden)
        rounding = Rounding.EXACT if self.strict else Rounding.UP
        self._check_experts(experts)
        inward = (
            Dimension(experts_inward(experts).parts, self.rows, rounding, fits),
            Dimension((hidden,), self.columns, Rounding.UP, fits),
        )
        outward = (
            Dimension((hidden,), self.rows, Rounding.UP, fits),
            Dimension((intermediate,), self.columns, rounding, fits),
        )
        return (
            Parameter(FLOAT32, inward, experts.count),
            Parameter(FLOAT32, outward, experts.count),
        )

    def _check_experts(self, experts: Experts) -> None:
        tile = gcd(self.rows, experts.intermediate, experts.hidden)
        if experts.intermediate % self.rows and (self.strict or tile < MIN_FITTED):
            raise ConfigError(
                "ConfigInvalid",
                f"config.json: {experts.name} are {experts.intermediate} wide, which tiles of {self.rows} do "
                "not divide; the engine refuses them",
            )

    def _check_fused(self, matrix: Matrix) -> None:
        if any(part.size % self.rows for part in matrix.rows[:-1]):
            raise ConfigError(
                "ConfigInvalid",
                f"config.json: {matrix.name} is fused of parts that tiles of {self.rows} outputs do not "
                "divide; the engine refuses it",
            )


def fp8_weight(matrix: Matrix) -> Parameter:
    """The weight in one byte per value."""
    return Parameter(FP8, (Dimension(matrix.rows), Dimension((matrix.columns,))))


def channel_scales(experts: Experts) -> tuple[Parameter, Parameter]:
    """A float32 scale for each output of both matrices."""
    return (
        Parameter(FLOAT32, (experts_inward(experts),), experts.count),
        Parameter(FLOAT32, (Dimension((whole(experts.hidden),)),), experts.count),
    )


def read_fp8(declaration: Declaration) -> Scheme | None:
    """The scheme of an `fp8` checkpoint. Raises `ConfigError`."""
    fields = declaration.fields
    block = block_of(fields)
    static = activation_scheme(fields, block) == "static"
    ignored = ignored_names(declaration)
    linear = TensorFp8(static=static) if block is None else BlockFp8(rows=block[0], columns=block[1])
    if fields.raw("store_dtype") is not None or (block is not None and block[0] != block[1]):
        return None

    def choose(name: str, module: Module) -> Format:
        return PLAIN if module is Module.HEAD or listed_exactly(name, ignored) else linear

    return Selected(choose, attention=declaration.kv_scales)


def activation_scheme(fields: Fields, block: tuple[int, int] | None) -> str:
    """How inputs are quantized. Raises `ConfigError` for what the engine refuses (`Fp8Config`)."""
    scheme = fields.optional_text("activation_scheme")
    if scheme not in ("static", "dynamic"):
        raise unsupported(f"activation_scheme {scheme!r}: the engine serves static and dynamic")
    if block is not None and scheme == "static":
        raise unsupported("weight_block_size with a static activation_scheme")
    return scheme


def block_of(fields: Fields) -> tuple[int, int] | None:
    """`weight_block_size`: outputs and inputs of a tile. Raises `ConfigError`."""
    value = fields.raw("weight_block_size")
    if value is None:
        return None
    sides = value if isinstance(value, list) else []
    sizes = [side for side in sides if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) != 2 or len(sizes) != 2 or not all(1 <= size <= MAX_TILE for size in sizes):
        fields.fail("weight_block_size", f"is not two sizes of 1 to {MAX_TILE}")
    return sizes[0], sizes[1]


def ignored_names(declaration: Declaration) -> frozenset[str]:
    """The modules that the checkpoint left as they were."""
    fields = declaration.fields
    names = texts(fields, "ignored_layers") or texts(fields, "modules_to_not_convert")
    return frozenset(declaration.naming.all(names))
