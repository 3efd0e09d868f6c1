"""Granite 4: Mamba-2 mixers or attention, then routed experts and an MLP that all tokens share.

Read in vLLM 0.32.0 `model_executor/models/{granitemoehybrid,granitemoe,granitemoeshared}.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.state import (
    Mamba2Names,
    Mamba2Shape,
    counted_layer_types,
    hybrid_body,
    mamba2_mixer,
    mamba2_shape,
    remember_tokens,
    vocabulary_size,
)
from tonnage.models.body import MAX_EXPERTS, Body, Source
from tonnage.models.decoder import AttentionShape, Bias, Mixture, Style, attention, attention_shape, mixture
from tonnage.models.profile import Layer, Outside
from tonnage.models.sheet import Sheet

_BIAS: Final = Bias(fields=("attention_bias",))
_STYLE: Final = Style(reads_head_dim=False, qkv_bias=_BIAS, output_bias=_BIAS)
_MIXTURE: Final = Mixture(
    count="num_local_experts", intermediate="intermediate_size", path="block_sparse_moe"
)
_TYPES: Final = ("linear_attention", "full_attention")
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


def read_granite_hybrid(source: Source) -> Body:
    """Granite 4, with and without recurrent state. Raises `ConfigError`."""
    shape = attention_shape(source, _STYLE)
    inner = source.size("mamba_expand", high=_MAX_EXPANSION) * source.hidden
    mamba = mamba2_shape(source, _MAMBA, inner=inner)
    layers = [_layer(source, shape, mamba, index, kind) for index, kind in enumerate(_layer_types(source))]
    every = source.sheet("")
    every.embedding(vocabulary_size(source), shape.hidden)
    every.vector(shape.hidden)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        every.head("lm_head", vocabulary_size(source), shape.hidden)
    return hybrid_body(source, layers, Outside(every=every.parameters, tied=tied), shape)


def _layer_types(source: Source) -> tuple[str, ...]:
    """The older name of the list overrides the newer one, as in transformers."""
    for name in ("layers_block_type", "layer_types"):
        stated = counted_layer_types(source, name, known=_TYPES)
        if stated is not None:
            return stated
    return ("linear_attention",) * source.layers


def _layer(source: Source, shape: AttentionShape, mamba: Mamba2Shape, index: int, kind: str) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    if kind == "linear_attention":
        mamba2_mixer(sheet, "mixer", mamba)
    else:
        attention(sheet, source, _STYLE, shape)
        remember_tokens(sheet, shape)
    if source.optional_size("num_local_experts", high=MAX_EXPERTS):
        mixture(sheet, source, _MIXTURE, hidden=shape.hidden, gated=True)
    _shared_mlp(sheet, source, shape.hidden)
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()


def _shared_mlp(sheet: Sheet, source: Source, hidden: int) -> None:
    intermediate = source.size("shared_intermediate_size", low=0)
    if intermediate:
        sheet.column_parallel("shared_mlp.input_linear", hidden, intermediate, intermediate)
        sheet.row_parallel("shared_mlp.output_linear", intermediate, hidden)
