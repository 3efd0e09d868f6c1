"""DBRX. Read in vLLM 0.32.0 `model_executor/models/dbrx.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_EXPERTS, MAX_HEADS, MAX_LAYERS, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import AttentionShape, cache_of
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.profile import Layer, Outside

_ATTENTION_DEFAULTS: Final = {"kv_n_heads": 1}
_EXPERT_DEFAULTS: Final = {"moe_num_experts": 4, "ffn_hidden_size": 3584}


def read_dbrx(source: Source) -> Body:
    """DBRX. The token table, the last norm and the head are held on every stage. Raises `ConfigError`."""
    if source.fields.flag("tie_word_embeddings"):
        source.fields.fail("tie_word_embeddings", "is true, which the engine refuses for this architecture")
    _refuse_quantized(source)
    shape = _shape(source)
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    every = source.sheet("")
    every.embedding(vocabulary, shape.hidden)
    every.vector(shape.hidden)
    every.head("lm_head", vocabulary, shape.hidden)
    layers = source.size("n_layers", high=MAX_LAYERS)
    return Body(
        layers=tuple(_layer(source, shape, index) for index in range(layers)),
        outside=Outside(every=every.parameters),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
    )


def _refuse_quantized(source: Source) -> None:
    declared = source.root.optional_object("quantization_config") or {}
    if declared.get("quant_method") in ("compressed-tensors", "compressed_tensors"):
        raise ConfigError(
            "UnsupportedAttention",
            "config.json: DbrxForCausalLM quantized by compressed-tensors: the engine leaves its experts as "
            "they are; not planned",
        )


def _shape(source: Source) -> AttentionShape:
    hidden, query_heads = source.size("d_model"), source.size("n_heads", high=MAX_HEADS)
    if hidden % query_heads:
        source.fields.fail("d_model", f"is {hidden}, which {query_heads} heads do not divide")
    kv_heads = _inner(source, "attn_config", _ATTENTION_DEFAULTS).integer("kv_n_heads", low=1, high=MAX_HEADS)
    if query_heads % kv_heads:
        source.fields.fail("attn_config", f"has {kv_heads} KV heads for {query_heads} heads")
    return AttentionShape(
        hidden=hidden, query_heads=query_heads, kv_heads=kv_heads, head_size=hidden // query_heads
    )


def _layer(source: Source, shape: AttentionShape, index: int) -> Layer:
    sheet = source.sheet(f"transformer.blocks.{index}.")
    path = "norm_attn_norm.attn"
    sheet.qkv(
        f"{path}.Wqkv",
        shape.hidden,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
    )
    sheet.row_parallel(f"{path}.out_proj", shape.hidden, shape.hidden)
    sheet.attention(f"{path}.attn")
    window = source.optional_size("sliding_window", high=MAX_CONTEXT) or None
    sheet.cache(cache_of(shape, window=window))
    experts = _inner(source, "ffn_config", _EXPERT_DEFAULTS)
    count = experts.integer("moe_num_experts", low=1, high=MAX_EXPERTS)
    intermediate = experts.integer("ffn_hidden_size", low=1, high=2**20)
    sheet.tensor(count, shape.hidden)
    sheet.experts("ffn", count=count, hidden=shape.hidden, intermediate=intermediate)
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()


def _inner(source: Source, name: str, defaults: Mapping[str, object]) -> Fields:
    stated = source.fields.optional_object(name) or {}
    return Fields(stated, where=f"config.json {name}", defaults=defaults)
