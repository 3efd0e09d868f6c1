"""The tensors of a model by shape and by how ranks share them: what a rank holds follows from it at any
parallelism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MODEL: Final = "model"
"""Element name of what follows the dtype the engine serves the model in."""

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


class Split(StrEnum):
    """How tensor-parallel ranks share a dimension."""

    WHOLE = "whole"
    RANKS = "ranks"
    HEADS = "heads"
    VOCABULARY = "vocabulary"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a dimension.

    RANKS: every rank has `size / ranks`, rounded up to `multiple`. HEADS: the stretch consists of `heads`
    equal pieces; ranks share them and each holds at least one (KV heads, state groups). VOCABULARY: as
    RANKS after the size is rounded up to `multiple`. WHOLE: every rank holds all of it, rounded up to
    `multiple`.
    """

    size: int
    split: Split = Split.WHOLE
    heads: int = 1
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of a tensor: parts laid end to end, `per` of their elements in one stored element.

    Each part is rounded up on its own: the scales of 128-element tiles, or 8 four-bit values in an int32.
    """

    parts: tuple[Part, ...]
    per: int = 1


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor that the engine holds, `count` times alike.

    `element` is `MODEL` or a key of `ELEMENT_BYTES`. `experts` is the number of routed experts it is held
    for (0: none); with expert parallelism ranks share the experts and hold each of theirs whole.
    """

    element: str
    dimensions: tuple[Dimension, ...]
    experts: int = 0
    count: int = 1


def whole(size: int) -> Part:
    """A stretch that every rank holds."""
    return Part(size)


def ranks(size: int, *, multiple: int = 1) -> Part:
    """A stretch that ranks divide."""
    return Part(size, Split.RANKS, multiple=multiple)


def heads(count: int, size: int) -> Part:
    """`count` heads of `size` elements that ranks divide, each holding at least one."""
    return Part(count * size, Split.HEADS, heads=count)
