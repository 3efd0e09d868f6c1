"""Routed experts whose values are packed in words with scales for groups of inputs: GPTQ and AWQ.

vllm/model_executor/layers/quantization/utils/marlin_utils.py `check_moe_marlin_supports_config`,
moe_wna16.py (0.32.0). Experts that Marlin does not take go to another kernel, which halves the groups until
they fit.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.fields import Fields
from tonnage.models.parameters import (
    MIN_FITTED,
    MODEL,
    Dimension,
    Parameter,
    Rounding,
    whole,
)
from tonnage.models.quantization.integers import WORD
from tonnage.models.quantization.select import unsupported
from tonnage.models.schemes import Experts, experts_inward

_MARLIN_GROUPS: Final = (None, 32, 64, 128)
_MARLIN_HIDDEN: Final = 128
_MAX_GROUP: Final = 2**16


def group_of(fields: Fields, key: str) -> int | None:
    """Inputs that share a scale; None where the config says -1: all of them. Raises `ConfigError`."""
    value = fields.integer(key, low=-1, high=_MAX_GROUP)
    if value == 0:
        fields.fail(key, "is 0")
    return None if value == -1 else value


class ExpertGroups:
    """The dimensions of routed experts in groups of `group` inputs (None: all inputs in one)."""

    def __init__(self, experts: Experts, *, group: int | None) -> None:
        self.hidden = whole(experts.hidden)
        self.intermediate = experts.width
        self.inward = experts_inward(experts)
        self.outward = Dimension((self.hidden,))
        self._count = experts.count
        self._marlin = experts.hidden % _MARLIN_HIDDEN == 0 and group in _MARLIN_GROUPS
        self._group = group
        self._cut = None if group is None else _cut(group, experts)
        if group is None and not self._marlin:
            raise unsupported(
                f"{experts.name}: the engine has no kernel for experts of one group and this size"
            )

    def scales(self) -> tuple[Parameter, Parameter]:
        """A scale in the model's dtype for each output and group."""
        hidden, intermediate = self._groups()
        return (
            Parameter(MODEL, (hidden, self.inward), self._count),
            Parameter(MODEL, (intermediate, self.outward), self._count),
        )

    def zeros(self, per: int) -> tuple[Parameter, Parameter]:
        """A zero point for each output and group, `per` outputs in a word."""
        hidden, intermediate = self._groups()
        inward = Dimension(self.inward.parts, per, Rounding.DOWN)
        outward = Dimension((self.hidden,), per, Rounding.DOWN)
        return (
            Parameter(WORD, (hidden, inward), self._count),
            Parameter(WORD, (intermediate, outward), self._count),
        )

    def biases(self) -> tuple[Parameter, Parameter]:
        """Biases of both matrices."""
        return Parameter(MODEL, (self.inward,), self._count), Parameter(MODEL, (self.outward,), self._count)

    def marlin_only(self, *tensors: Parameter) -> tuple[Parameter, ...]:
        """Tensors that only Marlin's experts have: those whose groups fit a rank's share."""
        if not self._marlin:
            return ()
        if self._group is None:
            return tensors
        fit = Dimension((self.intermediate,), self._group)
        return tuple(
            Parameter(tensor.element, tensor.dimensions, tensor.experts, tensor.count, fit)
            for tensor in tensors
        )

    def _groups(self) -> tuple[Dimension, Dimension]:
        if self._cut is None:
            one = Dimension((whole(1),))
            return one, one
        fits = (self.intermediate, self.hidden)
        return (
            Dimension((self.hidden,), self._cut, fits=fits),
            Dimension((self.intermediate,), self._cut, fits=fits),
        )


def _cut(group: int, experts: Experts) -> int:
    """The group halved until it divides the hidden size; a rank's share may halve it further."""
    if group & (group - 1):
        raise unsupported(f"{experts.name}: groups of {group}, no power of two, are not planned for experts")
    cut = group
    while experts.hidden % cut and cut >= MIN_FITTED:
        cut //= 2
    if cut < MIN_FITTED:
        raise unsupported(f"{experts.name}: the engine has no kernel for groups of {group} and this size")
    return cut
