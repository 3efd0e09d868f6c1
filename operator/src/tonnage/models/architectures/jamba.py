"""Jamba: Mamba mixers, attention in every n-th layer, experts in every m-th.

Read in vLLM 0.32.0 `model_executor/models/jamba.py`; which layers have what, in transformers 5.19.0
`models/jamba/configuration_jamba.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.state import (
    MambaNames,
    MambaShape,
    hybrid_body,
    mamba_mixer,
    mamba_shape,
    plain_head,
    remember_tokens,
    vocabulary_size,
)
from tonnage.models.body import MAX_EXPERTS, MAX_LAYERS, Body, Source
from tonnage.models.decoder import AttentionShape, Mixture, Style, attention_shape, mixture, mlp
from tonnage.models.profile import Layer, Outside
from tonnage.models.sheet import Sheet

_STYLE: Final = Style(reads_head_dim=False)
_MIXTURE: Final = Mixture(
    count="num_experts", intermediate="intermediate_size", path="feed_forward", tiled=False
)
_MAX_EXPANSION: Final = 1024
_MAMBA: Final = MambaNames(
    state="mamba_d_state",
    kernel="mamba_d_conv",
    steps="mamba_dt_rank",
    bias="mamba_proj_bias",
    kernel_bias="mamba_conv_bias",
)


def read_jamba(source: Source) -> Body:
    """Jamba. The output head is never shared with the token table. Raises `ConfigError`."""
    shape = attention_shape(source, _STYLE)
    inner = source.size("mamba_expand", high=_MAX_EXPANSION) * source.hidden
    mamba = mamba_shape(source, _MAMBA, inner=inner)
    attends = _every_nth(source, "attn_layer_period", "attn_layer_offset")
    mixes = _every_nth(source, "expert_layer_period", "expert_layer_offset")
    several = source.size("num_experts", high=MAX_EXPERTS) > 1
    layers = [
        _layer(source, index, shape if attends[index] else mamba, experts=several and mixes[index])
        for index in range(source.layers)
    ]
    every = source.sheet("")
    every.embedding(vocabulary_size(source), source.hidden)
    every.vector(source.hidden)
    plain_head(every, vocabulary_size(source), source.hidden)
    return hybrid_body(source, layers, Outside(every=every.parameters), shape)


def _layer(source: Source, index: int, shape: AttentionShape | MambaShape, *, experts: bool) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    if isinstance(shape, MambaShape):
        mamba_mixer(sheet, shape, norms=True)
    else:
        _attention(sheet, shape)
    hidden = shape.hidden
    if experts:
        mixture(sheet, source, _MIXTURE, hidden=hidden, gated=True)
    else:
        mlp(sheet, "feed_forward", hidden=hidden, intermediate=source.size("intermediate_size"), gated=True)
    sheet.vector(hidden, count=2)
    return sheet.layer()


def _attention(sheet: Sheet, shape: AttentionShape) -> None:
    """The attention's modules lie directly in the layer; its cache scales are not read."""
    sheet.qkv(
        "qkv_proj",
        shape.hidden,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
    )
    sheet.row_parallel("o_proj", shape.query_heads * shape.head_size, shape.hidden)
    remember_tokens(sheet, shape)


def _every_nth(source: Source, period_name: str, offset_name: str) -> list[bool]:
    """For each layer whether its number leaves the offset as remainder."""
    period = source.size(period_name, high=MAX_LAYERS)
    offset = source.size(offset_name, low=0, high=MAX_LAYERS)
    if offset >= period:
        source.fields.fail(offset_name, f"is {offset}, not less than {period_name} {period}")
    return [index % period == offset for index in range(source.layers)]
