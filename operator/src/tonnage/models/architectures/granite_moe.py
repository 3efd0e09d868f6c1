"""Granite with experts: with and without a shared MLP, with and without windows and sinks.

Read in vLLM 0.32.0 `model_executor/models/{granitemoe,granitemoeshared}.py` and, for windows and sinks,
`granite_layer_attn_params` in `granite.py`: a config that lists its layers has sinks unless it says
otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tonnage.models.body import MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import (
    AttentionShape,
    Mixture,
    Style,
    Windows,
    attention,
    attention_shape,
    cache_of,
    mixture,
    mlp,
    outside,
    window_tokens,
)
from tonnage.models.profile import Layer, Trait

_PLAIN: Final = Style(reads_head_dim=False, windows=Windows.ALL, every_stage=True)
_WINDOWED: Final = replace(_PLAIN, windows=Windows.FIRST_OF_NTH_FULL, nth_full=4, sinks=True)
_EXPERTS: Final = Mixture(
    count="num_local_experts", intermediate="intermediate_size", path="block_sparse_moe"
)


def read_granite_moe(source: Source) -> Body:
    """Granite 3 with experts. Raises `ConfigError`."""
    listed = source.fields.raw("layer_types") is not None
    return _read(source, replace(_PLAIN, sinks=_sinks(source, listed=listed)))


def read_granite_moe_windows(source: Source) -> Body:
    """Granite with experts and windows; its config class lists the layers where config.json does not.

    Raises `ConfigError`.
    """
    return _read(source, replace(_WINDOWED, sinks=_sinks(source, listed=True)))


def _sinks(source: Source, *, listed: bool) -> bool:
    stated = source.fields.raw("attention_sinks")
    return listed if stated is None else source.fields.flag("attention_sinks")


def _read(source: Source, style: Style) -> Body:
    shape = attention_shape(source, style)
    windows = window_tokens(source, style)
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=tuple(_layer(source, style, shape, index, window) for index, window in enumerate(windows)),
        outside=outside(source, style, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
        traits=frozenset({Trait.SINKS}) if style.sinks else frozenset(),
    )


def _layer(source: Source, style: Style, shape: AttentionShape, index: int, window: int | None) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    attention(sheet, source, style, shape)
    sheet.cache(cache_of(shape, window=window))
    mixture(sheet, source, _EXPERTS, hidden=shape.hidden, gated=True)
    shared = source.optional_size("shared_intermediate_size")
    if shared and source.architecture != "GraniteMoeForCausalLM":
        mlp(
            sheet,
            "shared_mlp",
            hidden=shape.hidden,
            intermediate=shared,
            gated=True,
            inward="input_linear",
            outward="output_linear",
        )
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()
