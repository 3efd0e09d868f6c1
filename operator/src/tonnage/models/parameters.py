"""The tensors of a model by shape and by how ranks share them: what a rank holds follows from it at any
parallelism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MODEL: Final = "model"
"""Element name of what follows the dtype the engine serves the model in."""

ROUTER: Final = "router"
"""Element name of routers computed in float32: stored so where the card has no kernel that does it from the
model's dtype (vllm/model_executor/layers/fused_moe/router/gate_linear.py 0.32 `GateLinear`)."""

ELEMENT_BYTES: Final[Mapping[str, int]] = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "float8": 1,
    "uint8": 1,
    "int8": 1,
    "int32": 4,
    "int64": 8,
}
"""Bytes of one stored element; `MODEL` is absent because the serving dtype decides."""

MIN_FITTED: Final = 32
"""The smallest tile of `Dimension.fits`: vllm/model_executor/layers/fused_moe/oracle/fp8.py 0.32
`refine_fp8_moe_block_shape`, quantization/moe_wna16.py."""


class Split(StrEnum):
    """How tensor-parallel ranks share a dimension."""

    WHOLE = "whole"
    RANKS = "ranks"
    HEADS = "heads"
    VOCABULARY = "vocabulary"
    EVEN = "even"


class Rounding(StrEnum):
    """What the engine does with elements that fill no whole `per`.

    EXACT: it refuses ranks whose share of a divided part is no multiple.
    """

    UP = "up"
    DOWN = "down"
    EXACT = "exact"


class Tile(StrEnum):
    """A multiple that follows from the kernel the engine picks for a GPU: planning knows it per compute
    capability.

    MXFP4_HIDDEN: the hidden size of GPT-OSS's experts. PLAIN_EXPERTS: a rank's share of the width of experts
    that are not quantized.
    """

    NONE = ""
    MXFP4_HIDDEN = "mxfp4-hidden"
    PLAIN_EXPERTS = "plain-experts"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a dimension.

    RANKS: every rank has `size / ranks`, rounded up to `multiple`, and whole ones of its `heads`. HEADS: the
    stretch consists of `heads` equal pieces; ranks share them and each holds at least one (KV heads, state
    groups). VOCABULARY: as RANKS after the size is rounded up to `multiple`. EVEN: as RANKS where ranks
    divide the `heads`, else whole. WHOLE: every rank holds all of it, rounded up to `multiple`. A `tile`
    stands for a `multiple` that the GPU decides.
    """

    size: int
    split: Split = Split.WHOLE
    heads: int = 1
    multiple: int = 1
    tile: Tile = Tile.NONE


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of a tensor: parts laid end to end, `per` of their elements in one stored element: the
    scales of 128-element tiles, or 8 four-bit values in an int32.

    `rounding` says what becomes of the rest of their sum. `fits`: where the rank's share of the first of
    these parts is no multiple of `per`, the engine works in smaller tiles, as large as divides `per` and the
    shares of all of them, and refuses less than `MIN_FITTED`.
    """

    parts: tuple[Part, ...]
    per: int = 1
    rounding: Rounding = Rounding.UP
    fits: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor that the engine holds, `count` times alike.

    `element` is `MODEL`, `ROUTER` or a key of `ELEMENT_BYTES`. `experts` is the number of routed experts it
    is held for (0: none); with expert parallelism ranks share the experts and hold each of theirs whole.
    `only_if`: held only by ranks whose share of that dimension its `per` divides.
    """

    element: str
    dimensions: tuple[Dimension, ...]
    experts: int = 0
    count: int = 1
    only_if: Dimension | None = None


def whole(size: int) -> Part:
    """A stretch that every rank holds."""
    return Part(size)


def ranks(size: int, *, multiple: int = 1, heads: int = 1) -> Part:
    """A stretch that ranks divide; with several `heads`, none of which may be cut."""
    return Part(size, Split.RANKS, heads=heads, multiple=multiple)


def heads(count: int, size: int) -> Part:
    """`count` heads of `size` elements that ranks divide, each holding at least one."""
    return Part(count * size, Split.HEADS, heads=count)
