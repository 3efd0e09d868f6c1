"""LFM2: short convolutions, attention in some layers; LFM2-MoE: routed experts after the first layers.

Read in vLLM 0.32.0 `model_executor/models/{lfm2,lfm2_moe}.py` and
`model_executor/layers/mamba/short_conv.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tonnage.models.architectures.state import (
    MAX_KERNEL,
    counted_layer_types,
    hybrid_body,
    remember_tokens,
    short_convolution_state,
    vocabulary_size,
)
from tonnage.models.body import MAX_EXPERTS, MAX_LAYERS, Body, Source
from tonnage.models.decoder import AttentionShape, Style, attention_shape
from tonnage.models.parameters import ranks
from tonnage.models.profile import Outside
from tonnage.models.sheet import Sheet

_STYLE: Final = Style(reads_head_dim=False)
_TYPES: Final = ("conv", "full_attention")


def read_lfm2(source: Source) -> Body:
    """LFM2. Raises `ConfigError`."""
    stated = counted_layer_types(source, "layer_types", known=_TYPES)
    types = _listed_types(source) if stated is None else stated
    intermediate, inner = _intermediate(source), source.size("block_dim")

    def feed_forward(sheet: Sheet, _: int) -> None:
        _mlp(sheet, inner, intermediate)

    return _body(source, types, channels=source.size("conv_dim"), feed_forward=feed_forward)


def read_lfm2_moe(source: Source) -> Body:
    """LFM2-MoE. Raises `ConfigError`."""
    types = counted_layer_types(source, "layer_types", known=_TYPES)
    if types is None:
        source.fields.fail("layer_types", "is missing; it says which layers have attention")
    dense = source.size("num_dense_layers", low=0, high=MAX_LAYERS)
    if dense >= len(types):
        source.fields.fail("num_dense_layers", f"is {dense}; the engine's model has experts in some layers")

    def feed_forward(sheet: Sheet, index: int) -> None:
        if index < dense:
            _mlp(sheet, source.hidden, source.size("intermediate_size"))
        else:
            _experts(sheet, source)

    return _body(source, types, channels=source.hidden, feed_forward=feed_forward)


def _body(
    source: Source, types: tuple[str, ...], *, channels: int, feed_forward: Callable[[Sheet, int], None]
) -> Body:
    """The output head is always the token table, which every pipeline stage holds."""
    shape = attention_shape(source, _STYLE)
    layers = []
    for index, kind in enumerate(types):
        sheet = source.sheet(f"model.layers.{index}.")
        if kind == "conv":
            _convolution(sheet, source, channels)
        else:
            _attention(sheet, shape)
        feed_forward(sheet, index)
        sheet.vector(shape.hidden, count=2)
        layers.append(sheet.layer())
    table, last = source.sheet(""), source.sheet("")
    table.embedding(vocabulary_size(source), shape.hidden)
    last.vector(shape.hidden)
    return hybrid_body(
        source, layers, Outside(every=table.parameters, last=last.parameters, tied=True), shape
    )


def _convolution(sheet: Sheet, source: Source, channels: int) -> None:
    kernel = source.size("conv_L_cache", high=MAX_KERNEL)
    bias = source.fields.flag("conv_bias")
    sheet.tensor(ranks(channels), 1, kernel)
    if bias:
        sheet.vector(ranks(channels))
    sheet.column_parallel("short_conv.in_proj", channels, channels, channels, channels, bias=bias)
    sheet.row_parallel("short_conv.out_proj", channels, channels, bias=bias)
    sheet.cache(short_convolution_state(channels, kernel))


def _attention(sheet: Sheet, shape: AttentionShape) -> None:
    sheet.qkv(
        "self_attn.qkv_proj",
        shape.hidden,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
    )
    sheet.row_parallel("self_attn.out_proj", shape.query_heads * shape.head_size, shape.hidden)
    sheet.vector(shape.head_size, count=2)
    remember_tokens(sheet, shape)


def _mlp(sheet: Sheet, hidden: int, intermediate: int) -> None:
    sheet.column_parallel("feed_forward.w13", hidden, intermediate, intermediate)
    sheet.row_parallel("feed_forward.w2", intermediate, hidden)


def _experts(sheet: Sheet, source: Source) -> None:
    count = source.size("num_experts", high=MAX_EXPERTS)
    sheet.replicated("feed_forward.gate", source.hidden, count)
    if source.fields.flag("use_expert_bias"):
        sheet.vector(count, element="float32")
    sheet.experts(
        "feed_forward.experts",
        count=count,
        hidden=source.hidden,
        intermediate=source.size("moe_intermediate_size"),
    )


def _listed_types(source: Source) -> tuple[str, ...]:
    """Types by `full_attn_idxs`; without it all layers have attention (transformers `Lfm2Config`)."""
    listed = source.fields.raw("full_attn_idxs")
    if listed is None:
        return ("full_attention",) * source.layers
    if not isinstance(listed, list) or len(listed) > MAX_LAYERS:
        source.fields.fail("full_attn_idxs", f"is not a list of at most {MAX_LAYERS} layers")
    return tuple("full_attention" if index in listed else "conv" for index in range(source.layers))


def _intermediate(source: Source) -> int:
    """Width of the MLP: two thirds of what the config says, times a factor, rounded up to a multiple
    (`Lfm2MLP`)."""
    name = "block_ff_dim" if source.fields.raw("block_ff_dim") is not None else "intermediate_size"
    width = source.size(name)
    if not source.fields.flag("block_auto_adjust_ff_dim"):
        return width
    width = int(2 * width / 3)
    factor = source.fields.optional_number("block_ffn_dim_multiplier", low=1e-3, high=1e3)
    if factor is not None:
        width = int(factor * width)
    multiple = source.size("block_multiple_of")
    return max(-(-width // multiple) * multiple, multiple)
