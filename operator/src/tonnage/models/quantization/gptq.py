"""GPTQ checkpoints (the engine's `auto_gptq`).

vllm/model_executor/layers/quantization/auto_gptq.py, utils/gptq_utils.py, moe_wna16.py (0.32.0).

The engine also looks into the checkpoint for layers that it left as they were; config.json does not tell
them, and what it does not list counts as quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import MODEL, Dimension, Parameter, Part, Rounding, ranks, whole
from tonnage.models.quantization.formats import Format, inputs, shards
from tonnage.models.quantization.integers import WORD, WORD_BITS
from tonnage.models.quantization.names import Naming, Pattern, some_or_all, texts
from tonnage.models.quantization.select import Selected, unsupported
from tonnage.models.schemes import Experts, Matrix, Unquantized, bias_of, experts_inward

_BITS: Final = (4, 8)
_MARLIN_GROUPS: Final = (32, 64, 128)
_MARLIN_HIDDEN: Final = 128
_MAX_RULES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """Values packed along the inputs in 32-bit words; scales and zero points for `group` inputs (None: all).

    Experts whose groups do not fit a rank's share go to another kernel, which has no zero points or biases
    and cuts the groups (moe_wna16.py).
    """

    bits: int
    group: int | None

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, zero points, bias. Raises `ConfigError`."""
        per = WORD_BITS // self.bits
        groups = Dimension((whole(1),)) if self.group is None else inputs(matrix, self.group)
        return (
            Parameter(WORD, (inputs(matrix, per), Dimension(matrix.rows))),
            Parameter(MODEL, (groups, Dimension(matrix.rows))),
            Parameter(WORD, (groups, Dimension(matrix.rows, per, Rounding.DOWN))),
            *bias_of(matrix),
        )

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights, scales; zero points and biases where the ranks' shares consist of whole groups."""
        per = WORD_BITS // self.bits
        shares = Shares(experts)
        scales = group_scales(shares, self.group)
        if not marlin_takes(experts, self.group):
            return (*self._weights(shares, per), *scales)
        zeros = packed_zeros(shares, self.group, per)
        biases = (
            Parameter(MODEL, (shares.inward,), experts.count),
            Parameter(MODEL, (shares.hidden_rows,), experts.count),
        )
        held = [_where_groups_fit(tensor, shares, self.group) for tensor in (*zeros, *biases)]
        return (*self._weights(shares, per), *scales, *held)

    def _weights(self, shares: Shares, per: int) -> tuple[Parameter, Parameter]:
        hidden = Dimension((shares.hidden,), per)
        intermediate = Dimension((shares.intermediate,), per, Rounding.EXACT)
        return (
            Parameter(WORD, (hidden, shares.inward), shares.count),
            Parameter(WORD, (intermediate, shares.hidden_rows), shares.count),
        )


class Shares:
    """The dimensions of routed experts."""

    def __init__(self, experts: Experts) -> None:
        self.count = experts.count
        self.hidden: Part = whole(experts.hidden)
        self.intermediate: Part = ranks(experts.intermediate)
        self.inward = experts_inward(experts)
        self.hidden_rows = Dimension((self.hidden,))
        self.shards = shards(experts)
