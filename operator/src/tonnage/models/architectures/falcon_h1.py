"""Falcon-H1: attention and a Mamba-2 mixer side by side in every layer.

Read in vLLM 0.32.0 `model_executor/models/falcon_h1.py`, which counts mixers on from the last layer in the
names by which it looks up quantization.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.state import (
    Mamba2Names,
    Mamba2Shape,
    hybrid_body,
    mamba2_mixer,
    mamba2_shape,
    plain_head,
    remember_tokens,
    vocabulary_size,
)
from tonnage.models.body import Body, Source
from tonnage.models.decoder import AttentionShape, Style, attention_shape, mlp
from tonnage.models.profile import Layer, Outside, Trait

_STYLE: Final = Style()
_MAX_EXPANSION: Final = 1024
_MAMBA: Final = Mamba2Names(
    heads="mamba_n_heads",
    head_size="mamba_d_head",
    groups="mamba_n_groups",
    state="mamba_d_state",
    kernel="mamba_d_conv",
    bias="mamba_proj_bias",
    kernel_bias="mamba_conv_bias",
)


def read_falcon_h1(source: Source) -> Body:
    """Falcon-H1. Raises `ConfigError`."""
    shape = attention_shape(source, _STYLE)
    stated = source.optional_size("mamba_d_ssm", low=1)
    inner = stated or source.size("mamba_expand", high=_MAX_EXPANSION) * source.hidden
    mamba = mamba2_shape(source, _MAMBA, inner=inner, norm=source.fields.flag("mamba_rms_norm"))
    layers = [_layer(source, shape, mamba, index) for index in range(source.layers)]
    table, last = source.sheet(""), source.sheet("")
    table.embedding(vocabulary_size(source), shape.hidden)
    last.vector(shape.hidden)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        plain_head(last, vocabulary_size(source), shape.hidden)
    outside = Outside(last=last.parameters, embedding=table.parameters, tied=tied)
    return hybrid_body(source, layers, outside, shape, traits=_traits(tied=tied))


def _traits(*, tied: bool) -> frozenset[Trait]:
    """The last stage of a pipeline looks for the token table, which only the first one has."""
    return frozenset({Trait.ONE_STAGE}) if tied else frozenset()


def _layer(source: Source, shape: AttentionShape, mamba: Mamba2Shape, index: int) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    sheet.qkv(
        "qkv_proj",
        shape.hidden,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
    )
    sheet.row_parallel("o_proj", shape.query_heads * shape.head_size, shape.hidden)
    sheet.attention("attn")
    remember_tokens(sheet, shape)
    intermediate = source.size("intermediate_size")
    mlp(sheet, "feed_forward", hidden=shape.hidden, intermediate=intermediate, gated=True)
    sheet.vector(shape.hidden, count=2)
    mixer = source.sheet(f"model.{source.layers + index}.")
    mamba2_mixer(mixer, "mixer", mamba)
    attending, mixing = sheet.layer(), mixer.layer()
    return Layer(caches=attending.caches + mixing.caches, parameters=attending.parameters + mixing.parameters)
