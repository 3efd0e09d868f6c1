"""Step-3.5: layers with a window may have other heads. Read in vLLM 0.32.0
`model_executor/models/step3p5.py` and `transformers_utils/configs/step3p5.py`."""

from __future__ import annotations

from typing import Final

from tonnage.models.body import (
    MAX_CONTEXT,
    MAX_EXPERTS,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    Body,
    Source,
)
from tonnage.models.decoder import AttentionShape, Bias, QkNorm, Style, attention, cache_of, mlp, outside
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.profile import Layer, Outside, Trait
from tonnage.models.sheet import Sheet

_STYLE: Final = Style(qkv_bias=Bias(fields=("attention_bias",)), qk_norm=QkNorm.HEAD, own_head=True)
_KINDS: Final = frozenset({"full_attention", "sliding_attention"})


def read_step3p5(source: Source) -> Body:
    """Step-3.5. Raises `ConfigError`."""
    if (source.fields.optional_text("att_impl_type") or "GQA") != "GQA":
        raise ConfigError(
            "UnsupportedAttention", "config.json: att_impl_type is not GQA; the engine has no other"
        )
    shape, kinds, experts = _shape(source), _layer_types(source), _expert_layers(source)
    other, other_kind = _other_shape(source, shape)
    layers = []
    for index in range(source.layers):
        kind = kinds[index] if kinds else None
        windowed = kind == "sliding_attention" if kinds else index % 2 == 0
        here = other if kind is not None and kind == other_kind else shape
        layers.append(_layer(source, here, index, windowed=windowed, experts=index in experts))
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=tuple(layers),
        outside=_outside(source, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
        traits=_traits(source),
    )


def _traits(source: Source) -> frozenset[Trait]:
    """The last stage of a pipeline fails on a config that does not state tie_word_embeddings."""
    stated = source.fields.raw("tie_word_embeddings") is not None
    return frozenset() if stated else frozenset({Trait.ONE_STAGE})


def _shape(source: Source) -> AttentionShape:
    hidden, query_heads = source.hidden, source.size("num_attention_heads", high=MAX_HEADS)
    stated = source.optional_size("head_dim", high=MAX_HEAD_SIZE)
    shape = AttentionShape(
        hidden=hidden,
        query_heads=query_heads,
        kv_heads=source.size("num_attention_groups", high=MAX_HEADS),
        head_size=stated or hidden // query_heads,
    )
    return _checked(source, shape)


def _other_shape(source: Source, shape: AttentionShape) -> tuple[AttentionShape, str | None]:
    """The heads of the layers that `attention_other_setting` describes, and which layers these are."""
    stated = source.fields.optional_object("attention_other_setting")
    if not stated:
        return shape, None
    fields = Fields(stated, where="config.json attention_other_setting")
    other = AttentionShape(
        hidden=shape.hidden,
        query_heads=fields.integer("num_attention_heads", low=0, high=MAX_HEADS) or shape.query_heads,
        kv_heads=fields.integer("num_attention_groups", low=0, high=MAX_HEADS) or shape.kv_heads,
        head_size=fields.integer("head_dim", low=0, high=MAX_HEAD_SIZE) or shape.head_size,
    )
    return _checked(source, other), fields.optional_text("attention_type")


def _checked(source: Source, shape: AttentionShape) -> AttentionShape:
    if shape.query_heads % shape.kv_heads or not 1 <= shape.head_size <= MAX_HEAD_SIZE:
        source.fields.fail(
            "num_attention_groups",
            f"is {shape.kv_heads} for {shape.query_heads} heads of {shape.head_size} elements",
        )
    return shape


def _layer_types(source: Source) -> tuple[str, ...] | None:
    """The kinds of the layers; published lists are longer than the model."""
    kinds = source.fields.optional_texts("layer_types", max_items=MAX_LAYERS)
    if not kinds:
        return None
    if len(kinds) < source.layers or set(kinds) - _KINDS:
        source.fields.fail(
            "layer_types", "is too short or holds something else than full_attention and sliding_attention"
        )
    return kinds


def _expert_layers(source: Source) -> frozenset[int]:
    """`moe_layers_enum` lists them ("4,5,6"); without it all but the first."""
    stated = source.fields.optional_text("moe_layers_enum", max_length=8 * MAX_LAYERS)
    if stated is None:
        return frozenset(range(1, source.layers))
    numbers = [number.strip() for number in stated.strip().split(",")]
    if not all(number.isascii() and number.isdigit() and len(number) < 8 for number in numbers):
        source.fields.fail("moe_layers_enum", "is not a list of layers such as 1,2,3")
    return frozenset(int(number) for number in numbers)


def _layer(source: Source, shape: AttentionShape, index: int, *, windowed: bool, experts: bool) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    attention(sheet, source, _STYLE, shape)
    if source.fields.flag("use_head_wise_attn_gate"):
        sheet.column_parallel("self_attn.g_proj", shape.hidden, shape.query_heads)
    window = source.optional_size("sliding_window", high=MAX_CONTEXT) or None
    sheet.cache(cache_of(shape, window=window if windowed else None))
    if experts:
        _experts(sheet, source, hidden=shape.hidden)
    else:
        intermediate = source.size("intermediate_size")
        mlp(sheet, "mlp", hidden=shape.hidden, intermediate=intermediate, gated=True)
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()


def _experts(sheet: Sheet, source: Source, *, hidden: int) -> None:
    count = source.size("moe_num_experts", high=MAX_EXPERTS)
    intermediate = source.size("moe_intermediate_size")
    sheet.tensor(count, hidden, element="float32")
    sheet.vector(count, element="float32")
    sheet.experts("moe.experts", count=count, hidden=hidden, intermediate=intermediate)
    shared = source.optional_size("share_expert_dim", low=1)
    if shared is None:
        shared = intermediate * source.size("moe_top_k", high=MAX_EXPERTS)
    mlp(sheet, "moe.share_expert", hidden=hidden, intermediate=shared, gated=True)


def _outside(source: Source, *, hidden: int, vocabulary: int) -> Outside:
    """With tie_word_embeddings the last stage holds the table beside the head."""
    common = outside(source, _STYLE, hidden=hidden, vocabulary=vocabulary)
    tied = source.fields.flag("tie_word_embeddings")
    return Outside(last=common.last, embedding=common.embedding, tied=tied)
