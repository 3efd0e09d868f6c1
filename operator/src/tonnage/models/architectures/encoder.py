"""BERT and RoBERTa as embedding models: encoders, which keep no cache (vLLM 0.32.0 bert.py, roberta.py)."""

from __future__ import annotations

from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import AttentionShape, Style, attention_shape, mlp
from tonnage.models.errors import ConfigError
from tonnage.models.profile import Layer, Outside, Trait

_STYLE: Final = Style(names={"num_key_value_heads": ""}, reads_head_dim=False)


def read_bert(source: Source) -> Body:
    """The body of a BERT or RoBERTa; its three tables are divided by ranks. Raises `ConfigError`."""
    _check_positions(source)
    shape = attention_shape(source, _STYLE)
    if shape.hidden % shape.query_heads:
        source.fields.fail("hidden_size", f"is {shape.hidden}, not a multiple of the attention heads")
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    intermediate = source.size("intermediate_size")
    return Body(
        layers=tuple(
            _layer(source, shape, index=index, intermediate=intermediate) for index in range(source.layers)
        ),
        outside=_outside(source, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
        traits=frozenset({Trait.ENCODER_ONLY, Trait.ONE_STAGE}),
    )


def _check_positions(source: Source) -> None:
    """The engine reads the kind of positions of an XLM-RoBERTa from its config (config.py
    `JinaRobertaModelConfig`) and has absolute ones only."""
    kind = source.fields.optional_text("position_embedding_type")
    if kind is None and source.architecture == "XLMRobertaModel":
        source.fields.fail("position_embedding_type", "is missing; the engine needs it")
    if kind not in (None, "absolute"):
        raise ConfigError(
            "UnsupportedAttention", f"config.json: position_embedding_type is {kind!r}; not planned"
        )


def _layer(source: Source, shape: AttentionShape, *, index: int, intermediate: int) -> Layer:
    """The engine takes the projections of an attention for a part of its output when it looks up their
    quantization (bert.py `BertAttention`)."""
    sheet = source.sheet(f"model.encoder.layer.{index}.")
    hidden = shape.hidden
    sheet.qkv(
        "attention.output.qkv_proj",
        hidden,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        bias=True,
    )
    sheet.row_parallel("attention.output.dense", hidden, hidden, bias=True)
    sheet.attention("attention.output.attn")
    mlp(
        sheet,
        "",
        hidden=hidden,
        intermediate=intermediate,
        gated=False,
        bias=True,
        inward="intermediate.dense",
        outward="output.dense",
    )
    sheet.vector(hidden, count=4)
    return sheet.layer()


def _outside(source: Source, *, hidden: int, vocabulary: int) -> Outside:
    sheet = source.sheet("")
    sheet.embedding(vocabulary, hidden)
    sheet.embedding(source.size("max_position_embeddings", high=MAX_CONTEXT), hidden)
    sheet.embedding(source.size("type_vocab_size", high=MAX_VOCABULARY), hidden)
    sheet.vector(hidden, count=2)
    return Outside(every=sheet.parameters)
