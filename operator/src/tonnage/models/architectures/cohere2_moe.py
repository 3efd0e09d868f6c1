"""Command A with experts. Read in vLLM 0.32.0 `model_executor/models/cohere2_moe.py`; the default lists of
layers in transformers 5.19.0 `models/cohere2_moe/configuration_cohere2_moe.py`."""

from __future__ import annotations

from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_LAYERS, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import (
    AttentionShape,
    Mixture,
    Style,
    Windows,
    attention,
    attention_shape,
    cache_of,
    has_experts,
    layer_kinds,
    mixture,
    mlp,
    outside,
)
from tonnage.models.profile import Layer

_STYLE: Final = Style(tied=True, every_stage=True)
_EXPERTS: Final = Mixture(
    count="num_experts",
    intermediate="intermediate_size",
    kinds="mlp_layer_types",
    first_dense="first_k_dense_replace",
    shared_count="num_shared_experts",
    shared_path="shared_experts",
)


def read_cohere2_moe(source: Source) -> Body:
    """Command A with experts; the token table makes the logits. Raises `ConfigError`."""
    shape = attention_shape(source, _STYLE)
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    windowed = layer_kinds(source, Windows.ALL, layers=source.layers) or _default_windows(source)
    return Body(
        layers=tuple(_layer(source, shape, index, window) for index, window in enumerate(windowed)),
        outside=outside(source, _STYLE, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
    )


def _default_windows(source: Source) -> list[bool]:
    """Every n-th layer is full; the dense layers in front have a stride of their own."""
    layers, dense = source.layers, source.size("first_k_dense_replace", low=0, high=MAX_LAYERS)
    in_front = source.size("prefix_dense_sliding_window_pattern", high=MAX_LAYERS)
    behind = source.size("sliding_window_pattern", high=MAX_LAYERS)
    if dense > layers:
        source.fields.fail("first_k_dense_replace", f"is {dense}, more than the {layers} layers")
    return [(index + 1) % in_front != 0 for index in range(dense)] + [
        (index + 1) % behind != 0 for index in range(layers - dense)
    ]


def _layer(source: Source, shape: AttentionShape, index: int, windowed: bool) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    attention(sheet, source, _STYLE, shape)
    # The model's windows count the tokens before the current one, the engine's include it.
    window = source.size("sliding_window", high=MAX_CONTEXT) + 1 if windowed else None
    sheet.cache(cache_of(shape, window=window))
    if has_experts(source, _EXPERTS, index):
        mixture(sheet, source, _EXPERTS, hidden=shape.hidden, gated=True)
    else:
        stated = source.optional_size("prefix_dense_intermediate_size", low=1)
        intermediate = source.size("intermediate_size") if stated is None else stated
        mlp(sheet, "mlp", hidden=shape.hidden, intermediate=intermediate, gated=True)
    sheet.vector(shape.hidden)
    return sheet.layer()
