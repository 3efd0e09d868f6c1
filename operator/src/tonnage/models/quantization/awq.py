"""AWQ checkpoints (the engine's `auto_awq`).

vllm/model_executor/layers/quantization/auto_awq.py (0.32.0). Where config.json lists no modules that were
left alone, the engine looks for them in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.parameters import MODEL, Dimension, Parameter, Rounding
from tonnage.models.quantization.formats import Format, inputs
from tonnage.models.quantization.integers import WORD, WORD_BITS
from tonnage.models.quantization.names import left_alone, matches, texts
from tonnage.models.quantization.packed import ExpertGroups, group_of
from tonnage.models.quantization.select import Declaration, Module, Selected, unsupported
from tonnage.models.schemes import Experts, Matrix, Scheme, Unquantized, bias_of

_BITS: Final = 4
_PER: Final = WORD_BITS // _BITS
_PLAIN: Final = Unquantized()


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq:
    """Values packed along the outputs in 32-bit words; scales and zero points for `group` inputs (None: all).

    `zero_point` says whether experts outside Marlin have zero points; all other layers do.
    """

    group: int | None
    zero_point: bool

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """Weight, scales, zero points, bias. Raises `ConfigError`."""
        groups = inputs(matrix, self.group or matrix.columns.size)
        packed = Dimension(matrix.rows, _PER, Rounding.DOWN)
        return (
            Parameter(WORD, (Dimension((matrix.columns,)), packed)),
            Parameter(MODEL, (groups, Dimension(matrix.rows))),
            Parameter(WORD, (groups, packed)),
            *bias_of(matrix),
        )

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Weights, scales, zero points. Raises `ConfigError`."""
        if self.group is None:
            raise unsupported(f"{experts.name}: the engine has no kernel for AWQ experts of one group")
        groups = ExpertGroups(experts, group=self.group)
        inward = Dimension(groups.inward.parts, _PER, Rounding.DOWN)
        outward = Dimension((groups.hidden,), _PER, Rounding.DOWN)
        zeros = groups.zeros(_PER)
        return (
            Parameter(WORD, (Dimension((groups.hidden,)), inward), experts.count),
            Parameter(WORD, (Dimension((groups.intermediate,)), outward), experts.count),
            *groups.scales(),
            *(zeros if self.zero_point else groups.marlin_only(*zeros)),
        )


def read_awq(declaration: Declaration) -> Scheme | None:
    """The scheme of an AWQ checkpoint. Raises `ConfigError`."""
    fields = declaration.fields
    bits_key = "w_bit" if fields.raw("w_bit") is not None else "bits"
    group_key = "q_group_size" if fields.raw("q_group_size") is not None else "group_size"
    for key in (bits_key, group_key, "zero_point"):
        if fields.raw(key) is None:
            raise unsupported(f"quantization_config lacks {key}, which the engine needs for AWQ")
    bits = fields.integer(bits_key, low=1, high=32)
    if bits != _BITS:
        raise unsupported(f"AWQ with {bits} bits: the engine serves 4")
    awq = Awq(group=group_of(fields, group_key), zero_point=fields.flag("zero_point"))
    kept = declaration.naming.all(texts(fields, "modules_to_not_convert"))
    head = fields.flag("lm_head")

    def listed(name: str) -> bool:
        return any(part in name for part in kept) if kept else left_alone(name)

    def choose(name: str, module: Module) -> Format:
        if module is Module.EXPERTS:
            return _PLAIN if listed(name) else awq
        if (module is Module.HEAD and not head) or matches(name, listed):
            return _PLAIN
        return awq

    return Selected(choose)
