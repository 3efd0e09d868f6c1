"""Kimi Linear: delta attention with a gate for every key element, latent attention in some layers, experts.

Read in vLLM 0.32.0 `models/kimi_k3/nvidia/model.py`, which also serves larger models of the kin; their
options are refused by name. Delta attention: `model_executor/layers/mamba/gdn/kimi_gdn_linear_attn.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.architectures.latent import (
    LatentShape,
    is_expert_layer,
    latent_attention,
    latent_body,
)
from tonnage.models.architectures.state import MAX_KERNEL, gated_key_state
from tonnage.models.body import MAX_EXPERTS, MAX_HEAD_SIZE, MAX_HEADS, MAX_LAYERS, Body, Source
from tonnage.models.decoder import mlp
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import ranks, whole
from tonnage.models.profile import Layer
from tonnage.models.sheet import Sheet

_OTHER_MODELS: Final = ("routed_expert_hidden_size", "attn_res_block_size", "mla_use_output_gate")
_LEAST_WIDTH: Final = 256
"""Elements of an expert's width that a rank holds at least (`KimiMoE`)."""

_MAX_SHARED: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeltaAttention:
    """Sizes of delta attention; `layers` has its layers, counted from 1."""

    heads: int
    head_size: int
    kernel: int
    layers: frozenset[int]


def read_kimi_linear(source: Source) -> Body:
    """Kimi Linear. Raises `ConfigError`."""
    _refuse_other_models(source)
    shape = _latent_shape(source)
    delta = _delta_attention(source)
    layers = [_layer(source, shape, delta, index) for index in range(source.layers)]
    return latent_body(source, shape, layers)


def _layer(source: Source, shape: LatentShape, delta: _DeltaAttention, index: int) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    if index + 1 in delta.layers:
        _write_delta_attention(sheet, delta, shape.hidden)
    else:
        latent_attention(sheet, shape)
    if source.fields.raw("num_experts") is not None and is_expert_layer(source, index):
        _experts(sheet, source, shape.hidden)
    else:
        mlp(sheet, "mlp", hidden=shape.hidden, intermediate=source.size("intermediate_size"), gated=True)
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()


def _write_delta_attention(sheet: Sheet, delta: _DeltaAttention, hidden: int) -> None:
    """Keys, values and what makes the gates are projected at once; the first half of a gate is whole."""
    inner = delta.heads * delta.head_size
    rows = [ranks(inner), ranks(inner), ranks(inner), ranks(delta.heads), whole(delta.head_size)]
    sheet.matrix("self_attn.in_proj_qkvgfab", rows, whole(hidden))
    sheet.column_parallel("self_attn.f_b_proj", delta.head_size, inner)
    sheet.vector(ranks(inner), element="float32")
    sheet.tensor(ranks(3 * inner), 1, delta.kernel, element="float32")
    sheet.vector(ranks(delta.heads), element="float32")
    sheet.replicated("self_attn.g_a_proj", hidden, delta.head_size)
    sheet.column_parallel("self_attn.g_b_proj", delta.head_size, inner)
    sheet.vector(delta.head_size)
    sheet.row_parallel("self_attn.o_proj", inner, hidden)
    sheet.cache(gated_key_state(delta.heads, delta.head_size, delta.kernel))


def _experts(sheet: Sheet, source: Source, hidden: int) -> None:
    count = source.size("num_experts", high=MAX_EXPERTS)
    intermediate = source.size("moe_intermediate_size")
    sheet.tensor(count, hidden)
    sheet.vector(count, element="float32")
    sheet.experts(
        "block_sparse_moe.experts",
        count=count,
        hidden=hidden,
        intermediate=intermediate,
        pieces=_pieces(source, intermediate),
    )
    shared = source.optional_size("num_shared_experts", high=_MAX_SHARED)
    if shared:
        width = shared * intermediate
        mlp(sheet, "block_sparse_moe.shared_experts", hidden=hidden, intermediate=width, gated=True)


def _pieces(source: Source, intermediate: int) -> int:
    """Pieces of the width that ranks hold whole: the engine fills narrower shares up with zeros.

    Where the pieces are no power of two, shares are not made of pieces.
    """
    least = source.optional_size("min_moe_intermediate_per_partition", low=1) or _LEAST_WIDTH
    pieces = intermediate // least
    if intermediate % least or pieces & (pieces - 1):
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: experts {intermediate} wide are not planned for {source.architecture}: ranks hold "
            f"at least {least}",
        )
    return pieces


def _latent_shape(source: Source) -> LatentShape:
    if not source.fields.flag("mla_use_nope"):
        source.fields.fail("mla_use_nope", "is not true; the engine's latent attention has no positions")
    return LatentShape(
        hidden=source.hidden,
        heads=source.size("num_attention_heads", high=MAX_HEADS),
        plain=source.size("qk_nope_head_dim", high=MAX_HEAD_SIZE),
        rotary=source.size("qk_rope_head_dim", high=MAX_HEAD_SIZE),
        value=source.size("v_head_dim", high=MAX_HEAD_SIZE),
        latent=source.size("kv_lora_rank", high=MAX_HEAD_SIZE),
        query_rank=source.optional_size("q_lora_rank", low=1),
    )


def _delta_attention(source: Source) -> _DeltaAttention:
    stated = source.fields.optional_object("linear_attn_config")
    if not stated:
        source.fields.fail("linear_attn_config", "is missing or empty; it describes the delta attention")
    inner = Fields(stated, where="config.json linear_attn_config")
    if inner.flag("use_full_rank_gate"):
        _refuse(source, "use_full_rank_gate")
    listed = inner.raw("kda_layers")
    if not isinstance(listed, list) or len(listed) > MAX_LAYERS:
        inner.fail("kda_layers", f"is not a list of at most {MAX_LAYERS} layers")
    return _DeltaAttention(
        heads=inner.integer("num_heads", low=1, high=MAX_HEADS),
        head_size=inner.integer("head_dim", low=1, high=MAX_HEAD_SIZE),
        kernel=inner.integer("short_conv_kernel_size", low=1, high=MAX_KERNEL),
        layers=frozenset(number for number in listed if isinstance(number, int)),
    )


def _refuse_other_models(source: Source) -> None:
    for name in _OTHER_MODELS:
        if source.fields.raw(name):
            _refuse(source, name)


def _refuse(source: Source, name: str) -> None:
    raise ConfigError(
        "UnsupportedAttention", f"config.json: {source.architecture} sets {name}; not planned yet"
    )
