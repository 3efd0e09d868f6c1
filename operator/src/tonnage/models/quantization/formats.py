"""What single modules hold in a quantized format, whatever decides which modules have it.

Shapes are those of the methods' `create_weights` in vLLM 0.32.0, before any repacking.
"""

from __future__ import annotations

from typing import Final, Protocol

from tonnage.models.errors import ConfigError
from tonnage.models.parameters import MODEL, Dimension, Parameter, Part, Rounding, whole
from tonnage.models.schemes import Experts, Matrix, experts_inward

FLOAT32: Final = "float32"


class Format(Protocol):
    """A way to store one module."""

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """The tensors of a linear layer, its bias included."""
        ...

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """The tensors of one layer's routed experts."""
        ...


def vector(element: str, size: int, *, experts: int = 0) -> Parameter:
    """A vector that every rank holds, for each of its experts."""
    return Parameter(element, (Dimension((whole(size),)),), experts)


def shards(experts: Experts) -> int:
    """Matrices fused on the way in."""
    return 2 if experts.gated else 1


def inputs(matrix: Matrix, per: int) -> Dimension:
    """The inputs of a linear layer in groups of `per`; the engine refuses inputs that do not fill them.

    Raises `ConfigError`.
    """
    if matrix.columns.size % per:
        raise ConfigError(
            "ConfigInvalid",
            f"config.json: {matrix.name} has {matrix.columns.size} inputs, which its groups of {per} do not "
            "divide",
        )
    return Dimension((matrix.columns,), per, Rounding.EXACT)


def pair(
    experts: Experts,
    element: str,
    *,
    per: int = 1,
    rounding: Rounding = Rounding.DOWN,
    fits: tuple[Part, ...] = (),
) -> tuple[Parameter, Parameter]:
    """One value for `per` inputs of each output: of both matrices of all experts."""
    hidden, intermediate = whole(experts.hidden), experts.width
    inward = (experts_inward(experts), Dimension((hidden,), per, rounding, fits))
    outward = (Dimension((hidden,)), Dimension((intermediate,), per, rounding, fits))
    return Parameter(element, inward, experts.count), Parameter(element, outward, experts.count)


def expert_vectors(experts: Experts, inward: int, outward: int) -> tuple[Parameter, Parameter]:
    """Float32 scales of each expert: `inward` for the matrices on the way in, `outward` for the way out."""
    return (
        vector(FLOAT32, inward, experts=experts.count),
        vector(FLOAT32, outward, experts=experts.count),
    )


def expert_biases(experts: Experts) -> tuple[Parameter, ...]:
    """Biases of both matrices, in the model's dtype, where the architecture has them."""
    if not experts.bias:
        return ()
    hidden = Dimension((whole(experts.hidden),))
    return (
        Parameter(MODEL, (experts_inward(experts),), experts.count),
        Parameter(MODEL, (hidden,), experts.count),
    )
