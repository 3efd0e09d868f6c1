"""OLMo Hybrid: gated delta nets, attention in every fourth layer.

Read in vLLM 0.32.0 `model_executor/models/olmo_hybrid.py` and
`model_executor/layers/mamba/gdn/olmo_gdn_linear_attn.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.state import (
    MAX_KERNEL,
    DeltaShape,
    counted_layer_types,
    delta_net_state,
    hybrid_body,
    remember_tokens,
    vocabulary_size,
)
from tonnage.models.body import MAX_HEAD_SIZE, MAX_HEADS, Body, Source
from tonnage.models.decoder import AttentionShape, QkNorm, Style, attention, attention_shape, mlp
from tonnage.models.parameters import ranks
from tonnage.models.profile import Outside
from tonnage.models.sheet import Sheet

_STYLE: Final = Style(reads_head_dim=False, qk_norm=QkNorm.ALL_HEADS)
_TYPES: Final = ("linear_attention", "full_attention")


def read_olmo_hybrid(source: Source) -> Body:
    """OLMo Hybrid. Raises `ConfigError`."""
    shape = attention_shape(source, _STYLE)
    net = _delta_shape(source, shape)
    layers = []
    for index, kind in enumerate(_layer_types(source)):
        sheet = source.sheet(f"model.layers.{index}.")
        if kind == "linear_attention":
            _net(sheet, net, shape.hidden)
        else:
            attention(sheet, source, _STYLE, shape)
            remember_tokens(sheet, shape)
        mlp(sheet, "mlp", hidden=shape.hidden, intermediate=source.size("intermediate_size"), gated=True)
        sheet.vector(shape.hidden, count=2)
        layers.append(sheet.layer())
    every = source.sheet("")
    every.embedding(vocabulary_size(source), shape.hidden)
    every.vector(shape.hidden)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        every.head("lm_head", vocabulary_size(source), shape.hidden)
    return hybrid_body(source, layers, Outside(every=every.parameters, tied=tied), shape)


def _net(sheet: Sheet, net: DeltaShape, hidden: int) -> None:
    sheet.column_parallel("linear_attn.in_proj_qkvg", hidden, net.keys, net.keys, net.values, net.values)
    sheet.column_parallel("linear_attn.b_proj", hidden, net.value_heads)
    sheet.column_parallel("linear_attn.a_proj", hidden, net.value_heads)
    sheet.tensor(ranks(net.convolved), 1, net.kernel)
    sheet.vector(ranks(net.value_heads), count=2)
    sheet.vector(net.value_size)
    sheet.row_parallel("linear_attn.o_proj", net.values, hidden)
    sheet.cache(delta_net_state(net))


def _delta_shape(source: Source, shape: AttentionShape) -> DeltaShape:
    """Sizes of the nets; what a config leaves out follows from the attention's (transformers
    `OlmoHybridConfig`)."""
    key_heads = source.optional_size("linear_num_key_heads", low=1, high=MAX_HEADS) or shape.query_heads
    value_heads = source.optional_size("linear_num_value_heads", low=1, high=MAX_HEADS) or shape.query_heads
    key_size = source.optional_size("linear_key_head_dim", low=1, high=MAX_HEAD_SIZE)
    if key_size is None:
        key_size = max(int(0.75 * shape.hidden / key_heads), 1)
    value_size = source.optional_size("linear_value_head_dim", low=1, high=2 * MAX_HEAD_SIZE)
    return DeltaShape(
        key_heads=key_heads,
        value_heads=value_heads,
        key_size=key_size,
        value_size=value_size or 2 * key_size,
        kernel=source.size("linear_conv_kernel_dim", high=MAX_KERNEL),
    )


def _layer_types(source: Source) -> tuple[str, ...]:
    stated = counted_layer_types(source, "layer_types", known=_TYPES)
    if stated is not None:
        return stated
    types = ["full_attention" if index % 4 == 3 else "linear_attention" for index in range(source.layers)]
    if "full_attention" not in types:
        types[-1] = "full_attention"
    return tuple(types)
