"""Gemma 3n: several streams of activations, per-layer inputs, layers that read another's cache.

Sources: vLLM 0.32.0 `model_executor/models/gemma3n.py`; transformers 5.19.0 `Gemma3nTextConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.body import MAX_HIDDEN, MAX_LAYERS, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import (
    ATTENTION_BIAS,
    AttentionShape,
    Style,
    Windows,
    attention_shape,
    cache_of,
    mlp,
    window_tokens,
)
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.profile import Layer, Outside, Trait
from tonnage.models.sheet import Sheet

_STYLE: Final = Style(windows=Windows.EVERY_NTH_FULL, nth_full=5, nth_field="")
_MAX_STREAMS: Final = 64
_TARGETS: Final = 2
"""Layers before the shared ones whose caches they read: the last but one for windows, the last for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    attention: AttentionShape
    windows: tuple[int | None, ...]
    intermediates: tuple[int, ...]
    own_caches: int
    input_size: int
    streams: int
    laurel_rank: int
    bias: bool


def read_gemma3n(source: Source) -> Body:
    """The text model of Gemma 3n, alone or inside a wrapper; it has no output head of its own.

    Raises `ConfigError`.
    """
    plan = _plan(source)
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    shape = plan.attention
    return Body(
        layers=tuple(_layer(source, plan, index) for index in range(len(plan.windows))),
        outside=_outside(source, plan, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
        traits=frozenset({Trait.ONE_STAGE}),
    )


def _plan(source: Source) -> _Plan:
    if source.fields.raw("altup_correct_scale") is False:
        raise ConfigError("UnsupportedAttention", "config.json: altup_correct_scale is false; not planned")
    windows = tuple(window_tokens(source, _STYLE))
    return _Plan(
        attention=attention_shape(source, _STYLE),
        windows=windows,
        intermediates=_intermediates(source, layers=len(windows)),
        own_caches=len(windows) - _shared(source, layers=len(windows)),
        input_size=source.size("hidden_size_per_layer_input"),
        streams=source.size("altup_num_inputs", high=_MAX_STREAMS),
        laurel_rank=source.size("laurel_rank"),
        bias=ATTENTION_BIAS.read(source),
    )


def _shared(source: Source, *, layers: int) -> int:
    shared = source.optional_size("num_kv_shared_layers", high=MAX_LAYERS) or 0
    if shared and layers - shared < _TARGETS:
        source.fields.fail("num_kv_shared_layers", f"is {shared}, which leaves no caches to read")
    return shared


def _intermediates(source: Source, *, layers: int) -> tuple[int, ...]:
    """`intermediate_size` of each layer: one number for all, or a list of them."""
    stated = source.fields.raw("intermediate_size")
    if not isinstance(stated, list):
        return (source.size("intermediate_size"),) * layers
    if len(stated) != layers:
        source.fields.fail("intermediate_size", f"has {len(stated)} entries for {layers} layers")
    listed = Fields(
        {f"intermediate_size[{index}]": size for index, size in enumerate(stated)}, where="config.json"
    )
    return tuple(
        listed.integer(f"intermediate_size[{index}]", low=1, high=MAX_HIDDEN) for index in range(layers)
    )


def _layer(source: Source, plan: _Plan, index: int) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    shares = index >= plan.own_caches
    hidden = plan.attention.hidden
    project(sheet, plan.attention, shares=shares, bias=plan.bias)
    if not shares:
        sheet.cache(cache_of(plan.attention, window=plan.windows[index]))
    mlp(sheet, "mlp", hidden=hidden, intermediate=plan.intermediates[index], gated=True)
    _streams(sheet, plan)
    sheet.column_parallel("laurel.linear_left", hidden, plan.laurel_rank)
    sheet.row_parallel("laurel.linear_right", plan.laurel_rank, hidden)
    sheet.replicated("per_layer_input_gate", hidden, plan.input_size)
    sheet.replicated("per_layer_projection", plan.input_size, hidden)
    sheet.vector(hidden, count=6)
    return sheet.layer(shares_cache=shares)


def project(sheet: Sheet, shape: AttentionShape, *, shares: bool, bias: bool) -> None:
    """Write down an attention with norms of queries and keys; one that reads another layer's cache projects
    and normalizes queries only."""
    query_size = shape.query_heads * shape.head_size
    if shares:
        sheet.column_parallel("self_attn.q_proj", shape.hidden, query_size, bias=bias)
    else:
        sheet.qkv(
            "self_attn.qkv_proj",
            shape.hidden,
            query_heads=shape.query_heads,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
            bias=bias,
        )
    sheet.row_parallel("self_attn.o_proj", query_size, shape.hidden, bias=bias)
    sheet.attention("self_attn.attn")
    sheet.vector(shape.head_size, count=1 if shares else 2)


def _streams(sheet: Sheet, plan: _Plan) -> None:
    """What predicts and corrects the streams; the scale of the correction is always in float32."""
    hidden, streams = plan.attention.hidden, plan.streams
    sheet.replicated("altup.correction_coefs", streams, streams)
    sheet.replicated("altup.prediction_coefs", streams, streams**2)
    sheet.replicated("altup.modality_router", hidden, streams)
    sheet.vector(hidden)
    sheet.vector(hidden, element="float32")


def _outside(source: Source, plan: _Plan, *, vocabulary: int) -> Outside:
    sheet = source.sheet("model.")
    hidden = plan.attention.hidden
    packed = plan.input_size * len(plan.windows)
    sheet.embedding(vocabulary, hidden)
    sheet.embedding(source.size("vocab_size_per_layer_input", high=MAX_VOCABULARY), packed)
    sheet.column_parallel("self_decoder.per_layer_model_projection", hidden, packed)
    sheet.vector(plan.input_size)
    for stream in range(plan.streams - 1):
        sheet.column_parallel(f"self_decoder.altup_projections.{stream}", hidden, hidden)
        sheet.column_parallel(f"altup_unembed_projections.{stream}", hidden, hidden)
    sheet.vector(hidden)
    return Outside(every=sheet.parameters, tied=True)
