"""How checkpoints store the weights of matrix multiplications: what a scheme is, and the unquantized one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from tonnage.models.parameters import MODEL, Dimension, Parameter, Part, Tile, heads, ranks, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One linear layer of the engine: `rows` outputs (parts of a fused layer each on its own), `columns`
    inputs.

    `name` is the engine's module path ("model.layers.0.self_attn.qkv_proj"), by which checkpoints name the
    modules they leave unquantized.
    """

    name: str
    rows: tuple[Part, ...]
    columns: Part
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The routed experts of one layer: `count` MLPs from `hidden` to `intermediate` and back.

    `gated` experts hold two matrices on the way in, fused. `name` as in `Matrix`. Where `pieces` is stated,
    a rank holds at least one of so many equal pieces of the intermediate size. `tiled` is False where the
    activation or the routing is none that Blackwell's kernel for unquantized experts knows
    (vllm/model_executor/layers/fused_moe/experts/trtllm_bf16_moe.py 0.32).
    """

    name: str
    count: int
    hidden: int
    intermediate: int
    gated: bool = True
    bias: bool = False
    pieces: int = 0
    tiled: bool = True

    @property
    def width(self) -> Part:
        """The intermediate size as ranks share it."""
        if self.pieces:
            return heads(self.pieces, self.intermediate // self.pieces)
        return ranks(self.intermediate)


class Scheme(Protocol):
    """A way to store weights: the tensors that the engine holds for a module before it repacks them."""

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """The tensors of a linear layer, its bias included."""
        ...

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """The tensors of routed experts."""
        ...

    def attention(self, name: str) -> tuple[Parameter, ...]:
        """The scales that an attention layer holds for its KV cache."""
        ...

    def head(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """The tensors of the output head."""
        ...


class Unquantized:
    """Every weight in the dtype the engine serves the model in."""

    def matrix(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """The matrix and its bias."""
        weight = Parameter(MODEL, (Dimension(matrix.rows), Dimension((matrix.columns,))))
        return (weight, *bias_of(matrix))

    def experts(self, experts: Experts) -> tuple[Parameter, ...]:
        """Both matrices of all experts, and their biases."""
        width = replace(experts.width, tile=Tile.PLAIN_EXPERTS) if experts.tiled else experts.width
        inward = Dimension((width,) * (2 if experts.gated else 1))
        weights = (
            Parameter(MODEL, (inward, Dimension((whole(experts.hidden),))), experts.count),
            Parameter(
                MODEL,
                (Dimension((whole(experts.hidden),)), Dimension((width,))),
                experts.count,
            ),
        )
        if not experts.bias:
            return weights
        return (
            *weights,
            Parameter(MODEL, (inward,), experts.count),
            Parameter(MODEL, (Dimension((whole(experts.hidden),)),), experts.count),
        )

    def attention(self, name: str) -> tuple[Parameter, ...]:
        """None."""
        return ()

    def head(self, matrix: Matrix) -> tuple[Parameter, ...]:
        """As any matrix."""
        return self.matrix(matrix)


def bias_of(matrix: Matrix) -> tuple[Parameter, ...]:
    """The bias of a linear layer, in the model's dtype."""
    return (Parameter(MODEL, (Dimension(matrix.rows),)),) if matrix.bias else ()


def experts_inward(experts: Experts) -> Dimension:
    """The outputs of the experts' first matrix: one or two times the intermediate size, divided by ranks."""
    return Dimension((experts.width,) * (2 if experts.gated else 1))
