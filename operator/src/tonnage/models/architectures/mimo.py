"""MiMo-V2: layers with a window and without, of different heads, keys wider than values.

Read in vLLM 0.32.0 `model_executor/models/mimo_v2.py`. The published configs state attention_chunk_size,
which the engine drops (transformers_utils/model_arch_config_convertor.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.body import (
    MAX_CONTEXT,
    MAX_HEAD_SIZE,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    Body,
    Source,
)
from tonnage.models.decoder import aliased_count, mlp
from tonnage.models.parameters import ranks
from tonnage.models.profile import CacheSpec, FullAttention, Layer, Outside, SlidingWindow, Trait
from tonnage.models.sheet import Sheet

_ROUTER_ELEMENTS: Final = frozenset({"float32", "bfloat16", "float16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    query: int
    kv: int
    size: int
    value_size: int
    window: int | None
    sinks: bool


def read_mimo_v2(source: Source) -> Body:
    """MiMo-V2-Flash. Raises `ConfigError`."""
    full = _heads(source, prefix="", window=None, sinks=False)
    stated = source.size("sliding_window_size", low=-1, high=MAX_CONTEXT)
    if stated == 0:
        source.fields.fail("sliding_window_size", "is 0; -1 means no window")
    windowed = _heads(
        source,
        prefix="swa_",
        window=None if stated == -1 else stated,
        sinks=source.fields.flag("add_swa_attention_sink_bias"),
    )
    hidden = source.hidden
    has_window = _marks(source, "hybrid_layer_pattern")
    layers = tuple(
        _layer(source, windowed if mark == 1 else full, index, hidden=hidden)
        for index, mark in enumerate(has_window)
    )
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=layers,
        outside=_outside(source, hidden=hidden, vocabulary=vocabulary),
        hidden_size=hidden,
        vocab_size=vocabulary,
        num_attention_heads=full.query,
        head_size=full.size,
        head_elements=full.size + full.value_size,
        traits=frozenset({Trait.SINKS}) if windowed.sinks and 1 in has_window else frozenset(),
    )


def _heads(source: Source, *, prefix: str, window: int | None, sinks: bool) -> _Heads:
    query = source.size(f"{prefix}num_attention_heads", high=MAX_HEADS)
    kv = source.size(f"{prefix}num_key_value_heads", high=MAX_HEADS)
    if query % kv:
        source.fields.fail(
            f"{prefix}num_key_value_heads", f"is {kv}, which does not divide the {query} attention heads"
        )
    size = source.size(f"{prefix}head_dim", high=MAX_HEAD_SIZE)
    value_size = source.optional_size(f"{prefix}v_head_dim", low=1, high=MAX_HEAD_SIZE)
    return _Heads(query=query, kv=kv, size=size, value_size=value_size or size, window=window, sinks=sinks)


def _marks(source: Source, name: str) -> list[object]:
    """A list with one mark for each layer."""
    listed, layers = source.fields.raw(name), source.layers
    if not isinstance(listed, list) or not layers <= len(listed) <= MAX_LAYERS:
        source.fields.fail(name, f"is not a list of one number for each of {layers} layers")
    return listed[:layers]


def _layer(source: Source, shape: _Heads, index: int, *, hidden: int) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    sheet.qkv(
        "self_attn.qkv_proj",
        hidden,
        query_heads=shape.query,
        kv_heads=shape.kv,
        head_size=shape.size,
        head_size_v=shape.value_size,
        bias=source.fields.flag("attention_bias"),
    )
    sheet.row_parallel("self_attn.o_proj", shape.query * shape.value_size, hidden)
    sheet.attention("self_attn.attn")
    sheet.cache(_cache(shape))
    if shape.sinks:
        sheet.vector(ranks(shape.query))
    if _has_experts(source, index):
        _experts(sheet, source, hidden=hidden)
    else:
        mlp(sheet, "mlp", hidden=hidden, intermediate=source.size("intermediate_size"), gated=True)
    sheet.vector(hidden, count=2)
    return sheet.layer()


def _cache(shape: _Heads) -> CacheSpec:
    if shape.window is None:
        return FullAttention(kv_heads=shape.kv, head_size=shape.size, head_size_v=shape.value_size)
    return SlidingWindow(
        kv_heads=shape.kv,
        head_size=shape.size,
        head_size_v=shape.value_size,
        window_tokens=shape.window,
    )


def _has_experts(source: Source, index: int) -> bool:
    """`moe_layer_freq` lists them; without a list the engine builds no experts."""
    if not isinstance(source.fields.raw("moe_layer_freq"), list):
        return False
    return bool(_marks(source, "moe_layer_freq")[index])


def _experts(sheet: Sheet, source: Source, *, hidden: int) -> None:
    count = aliased_count(source, "n_routed_experts", "num_local_experts")
    if not count:
        source.fields.fail("n_routed_experts", "is 0")
    element = source.fields.optional_text("moe_router_dtype") or "float32"
    if element not in _ROUTER_ELEMENTS:
        source.fields.fail("moe_router_dtype", f"is not one of {', '.join(sorted(_ROUTER_ELEMENTS))}")
    sheet.tensor(count, hidden, element=element)
    sheet.vector(count, element="float32")
    intermediate = source.size("moe_intermediate_size")
    sheet.experts("mlp.experts", count=count, hidden=hidden, intermediate=intermediate)


def _outside(source: Source, *, hidden: int, vocabulary: int) -> Outside:
    """The output head is always its own; with tie_word_embeddings the last stage holds the table beside
    it."""
    table, last = source.sheet("model.embed_tokens"), source.sheet("")
    table.embedding(vocabulary, hidden)
    last.vector(hidden)
    last.head("lm_head", vocabulary, hidden)
    tied = source.fields.flag("tie_word_embeddings")
    return Outside(last=last.parameters, embedding=table.parameters, tied=tied)
