"""Llama 4: layers with rotary positions attend within chunks, those without to all tokens.

Read in vLLM 0.32.0 `model_executor/models/llama4.py`; defaults of `no_rope_layers` in transformers 5.19.0
`models/llama4/configuration_llama4.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_LAYERS, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import (
    AttentionShape,
    Mixture,
    Style,
    attention,
    attention_shape,
    cache_of,
    mixture,
    mlp,
    outside,
)
from tonnage.models.profile import CacheSpec, ChunkedLocal, Layer
from tonnage.models.sheet import Sheet

_STYLE: Final = Style()
_EXPERTS: Final = Mixture(
    count="num_local_experts",
    intermediate="intermediate_size",
    path="feed_forward",
    shared_intermediate="intermediate_size",
)


def read_llama4(source: Source) -> Body:
    """The text model of Llama 4. Raises `ConfigError`."""
    shape = attention_shape(source, _STYLE)
    layers = [
        _layer(source, shape, index, rotary=rotary) for index, rotary in enumerate(_rotary_layers(source))
    ]
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=tuple(layers),
        outside=outside(source, _STYLE, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
    )


def _layer(source: Source, shape: AttentionShape, index: int, *, rotary: bool) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    attention(sheet, source, _STYLE, shape)
    sheet.cache(_cache(source, shape, rotary=rotary))
    _feed_forward(sheet, source, index, hidden=shape.hidden)
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()


def _cache(source: Source, shape: AttentionShape, *, rotary: bool) -> CacheSpec:
    chunk = source.optional_size("attention_chunk_size", high=MAX_CONTEXT)
    if not rotary or not chunk:
        return cache_of(shape, window=None)
    return ChunkedLocal(
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        head_size_v=shape.head_size,
        chunk_tokens=chunk,
    )


def _feed_forward(sheet: Sheet, source: Source, index: int, *, hidden: int) -> None:
    every = source.size("interleave_moe_layer_step", high=MAX_LAYERS)
    if (index + 1) % every == 0:
        mixture(sheet, source, _EXPERTS, hidden=hidden, gated=True)
    else:
        intermediate = source.size("intermediate_size_mlp")
        mlp(sheet, "feed_forward", hidden=hidden, intermediate=intermediate, gated=True)


def _rotary_layers(source: Source) -> list[bool]:
    """Which layers have rotary positions: all but every `no_rope_layer_interval`-th unless listed."""
    layers, listed = source.layers, source.fields.raw("no_rope_layers")
    if not listed:
        interval = source.size("no_rope_layer_interval", high=MAX_LAYERS)
        return [(index + 1) % interval != 0 for index in range(layers)]
    if not isinstance(listed, list) or not layers <= len(listed) <= MAX_LAYERS:
        source.fields.fail("no_rope_layers", f"is not a list of one number for each of {layers} layers")
    return [listed[index] != 0 for index in range(layers)]
