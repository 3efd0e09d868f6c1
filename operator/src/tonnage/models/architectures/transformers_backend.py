"""Models that the engine builds from transformers' modules and that differ from the common decoder.

vLLM 0.32.0 `model_executor/models/transformers` fuses the queries, keys and values that a module computes
from one input, and gate and up projections; other layers are divided as transformers' plans say, and are
whole on every rank where there is no plan.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.body import MAX_CONTEXT, MAX_LAYERS, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import (
    ATTENTION_BIAS,
    MLP_BIAS,
    AttentionShape,
    Style,
    Windows,
    attention_shape,
    cache_of,
    intermediate_size,
    layer_kinds,
    read_decoder,
    window_tokens,
)
from tonnage.models.profile import Layer, Outside

_BIGCODE: Final = Style(
    names={
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
    },
    reads_head_dim=False,
    multi_query=True,
    windows=Windows.ALL,
    per_layer=False,
)

_SMOLLM3: Final = Style(
    windows=Windows.ALL, qkv_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mlp_bias=MLP_BIAS
)


def read_gpt_bigcode(source: Source) -> Body:
    """GPT BigCode, StarCoder (transformers `GPTBigCodeModel`, which has no plan): its MLPs are whole on every
    rank, and so is its attention where each query head has a key and a value head of its own."""
    shape = attention_shape(source, _BIGCODE)
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    intermediate = intermediate_size(source, _BIGCODE, shape.hidden)
    return Body(
        layers=tuple(
            _bigcode_layer(source, shape, index=index, window=window, intermediate=intermediate)
            for index, window in enumerate(window_tokens(source, _BIGCODE))
        ),
        outside=_bigcode_outside(source, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.query_heads,
        head_size=shape.head_size,
        head_elements=2 * shape.head_size,
    )


def _bigcode_layer(
    source: Source, shape: AttentionShape, *, index: int, window: int | None, intermediate: int
) -> Layer:
    sheet = source.sheet(f"model.h.{index}.")
    hidden = shape.hidden
    if source.fields.flag("multi_query"):
        sheet.qkv(
            "attn.c_attn",
            hidden,
            query_heads=shape.query_heads,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
            bias=True,
        )
        sheet.row_parallel("attn.c_proj", hidden, hidden, bias=True)
    else:
        sheet.replicated("attn.c_attn", hidden, 3 * hidden, bias=True)
        sheet.replicated("attn.c_proj", hidden, hidden, bias=True)
    sheet.attention("attn.attn")
    sheet.cache(cache_of(shape, window=window))
    sheet.replicated("mlp.c_fc", hidden, intermediate, bias=True)
    sheet.replicated("mlp.c_proj", intermediate, hidden, bias=True)
    sheet.vector(hidden, count=4)
    return sheet.layer()


def _bigcode_outside(source: Source, *, hidden: int, vocabulary: int) -> Outside:
    """Positions stay with the token table, also on the last stage of a tied model."""
    table, last = source.sheet(""), source.sheet("")
    table.embedding(vocabulary, hidden)
    table.tensor(source.size("n_positions", high=MAX_CONTEXT), hidden)
    last.vector(hidden, count=2)
    tied = source.fields.flag("tie_word_embeddings")
    if not tied:
        last.head("lm_head", vocabulary, hidden)
    return Outside(last=last.parameters, embedding=table.parameters, tied=tied)


def read_smollm3(source: Source) -> Body:
    """SmolLM3 (transformers `SmolLM3Config`): where `layer_types` does not say, windows belong to the layers
    without positions."""
    window = source.optional_size("sliding_window", high=MAX_CONTEXT) or None
    kinds = layer_kinds(source, Windows.ALL, layers=source.layers)
    if kinds is None:
        switched = source.fields.flag("use_sliding_window") and window is not None
        kinds = [switched and not positioned for positioned in _positioned_layers(source)]
    return read_decoder(source, _SMOLLM3, windows=[window if slides else None for slides in kinds])


def _positioned_layers(source: Source) -> list[bool]:
    """For each layer whether it rotates positions: `no_rope_layers` holds a true number where it does."""
    stated = source.fields.raw("no_rope_layers")
    if stated is None:
        interval = source.size("no_rope_layer_interval", high=MAX_LAYERS)
        return [(index + 1) % interval != 0 for index in range(source.layers)]
    if not isinstance(stated, list) or len(stated) != source.layers:
        source.fields.fail("no_rope_layers", f"is not a list of {source.layers} numbers")
    return [bool(item) for item in stated]
