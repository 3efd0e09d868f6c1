"""gpt-oss: sinks, biases everywhere, a sliding window in every other layer.

Read in vLLM 0.32.0 `model_executor/models/gpt_oss.py`, which takes every other layer whatever `layer_types`
says, and holds the token table, the last norm and the output head on every pipeline stage. Where all
`layer_types` have a window the engine gives it to the other layers too (engine/arg_utils.py).
"""

from __future__ import annotations

from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import (
    AttentionShape,
    Bias,
    Style,
    Windows,
    aliased_count,
    attention,
    attention_shape,
    cache_of,
    layer_kinds,
)
from tonnage.models.profile import Layer, Outside, Trait
from tonnage.models.sheet import vocabulary

_STYLE: Final = Style(
    attention_path="attn", qkv_bias=Bias(always=True), output_bias=Bias(always=True), sinks=True
)


def read_gpt_oss(source: Source) -> Body:
    """gpt-oss. Raises `ConfigError`."""
    shape = attention_shape(source, _STYLE)
    rows = source.size("vocab_size", high=MAX_VOCABULARY)
    kinds = layer_kinds(source, Windows.ALL, layers=source.layers)
    everywhere = kinds is not None and all(kinds)
    return Body(
        layers=tuple(
            _layer(source, shape, index, windowed=everywhere or index % 2 == 0)
            for index in range(source.layers)
        ),
        outside=_outside(source, shape, rows),
        hidden_size=shape.hidden,
        vocab_size=rows,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
        traits=frozenset({Trait.SINKS}),
    )


def _layer(source: Source, shape: AttentionShape, index: int, *, windowed: bool) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    attention(sheet, source, _STYLE, shape)
    window = source.optional_size("sliding_window", high=MAX_CONTEXT) or None
    sheet.cache(cache_of(shape, window=window if windowed else None))
    count = aliased_count(source, "num_local_experts", "num_experts")
    if not count:
        source.fields.fail("num_local_experts", "is 0")
    sheet.tensor(count, shape.hidden)
    sheet.vector(count)
    sheet.experts(
        "mlp.experts",
        count=count,
        hidden=shape.hidden,
        intermediate=source.size("intermediate_size"),
        bias=True,
        tiled=False,
    )
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()


def _outside(source: Source, shape: AttentionShape, rows: int) -> Outside:
    every = source.sheet("")
    every.embedding(rows, shape.hidden)
    every.vector(shape.hidden)
    every.tensor(vocabulary(rows), shape.hidden)
    return Outside(every=every.parameters)
