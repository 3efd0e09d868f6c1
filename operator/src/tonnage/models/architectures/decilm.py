"""DeciLM, Nemotron NAS: layers of different widths, some without attention or MLP (vLLM 0.32.0
nemotron_nas.py)."""

from __future__ import annotations

from dataclasses import replace

from tonnage.models.body import MAX_HEADS, MAX_HIDDEN, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import (
    LLAMA,
    AttentionShape,
    attention,
    attention_shape,
    cache_of,
    mlp,
    outside,
    window_tokens,
)
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.profile import Layer
from tonnage.models.sheet import Sheet

_MULTIPLE = 256


def read_decilm(source: Source) -> Body:
    """The body of a DeciLM. Raises `ConfigError`."""
    shape = attention_shape(source, LLAMA)
    windows = window_tokens(source, LLAMA)
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=tuple(
            _layer(source, shape, block, index=index, window=windows[index])
            for index, block in enumerate(_blocks(source, layers=len(windows)))
        ),
        outside=outside(source, LLAMA, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
    )


def _blocks(source: Source, *, layers: int) -> list[Fields]:
    blocks = source.fields.raw("block_configs")
    if not isinstance(blocks, list) or len(blocks) != layers:
        source.fields.fail("block_configs", f"is not a list of {layers} blocks")
    found = []
    for index, block in enumerate(blocks):
        if not isinstance(block, dict):
            source.fields.fail("block_configs", f"holds something else than an object for layer {index}")
        found.append(Fields(block, where=f"config.json block_configs {index}"))
    return found


def _part(block: Fields, name: str) -> Fields | None:
    """The settings of a block's attention or MLP, None where it has none."""
    values = block.optional_object(name)
    if values is None:
        block.fail(name, "is missing")
    part = Fields(values, where=f"config.json block_configs {name}")
    if part.flag("no_op"):
        return None
    if part.flag("replace_with_linear"):
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: block_configs replaces the {name} of a layer by a linear layer; "
            "the engine does not build such layers",
        )
    return part


def _layer(source: Source, shape: AttentionShape, block: Fields, *, index: int, window: int | None) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    own_attention, own_mlp = _part(block, "attention"), _part(block, "ffn")
    if own_attention is not None:
        _attention(sheet, source, shape, own_attention, window=window)
    if own_mlp is not None:
        mlp(
            sheet,
            "mlp",
            hidden=shape.hidden,
            intermediate=_intermediate(own_mlp, hidden=shape.hidden),
            gated=True,
            bias=LLAMA.mlp_bias.read(source),
        )
        sheet.vector(shape.hidden)
    return sheet.layer()


def _attention(
    sheet: Sheet, source: Source, shape: AttentionShape, part: Fields, *, window: int | None
) -> None:
    group = part.integer("n_heads_in_group", low=1, high=MAX_HEADS)
    if shape.query_heads % group:
        part.fail("n_heads_in_group", f"is {group}, which does not divide the {shape.query_heads} heads")
    own = replace(shape, kv_heads=shape.query_heads // group)
    attention(sheet, source, LLAMA, own)
    sheet.cache(cache_of(own, window=window))
    sheet.vector(shape.hidden)


def _intermediate(part: Fields, *, hidden: int) -> int:
    """Two thirds of a multiple of the hidden size, rounded up, unless the width itself is stated."""
    factor = part.optional_number("ffn_mult", low=1e-6, high=1e3)
    if factor is None:
        return part.integer("intermediate_size", low=1, high=MAX_HIDDEN)
    return -(-int(2 * factor * hidden / 3) // _MULTIPLE) * _MULTIPLE
