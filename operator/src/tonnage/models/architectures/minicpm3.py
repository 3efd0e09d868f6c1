"""MiniCPM3: latent projections, of which the engine caches full keys and values (vLLM 0.32.0 minicpm3.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.body import MAX_HEAD_SIZE, MAX_HEADS, MAX_VOCABULARY, Body, Source
from tonnage.models.decoder import AttentionShape, Style, Windows, cache_of, mlp, outside, window_tokens
from tonnage.models.errors import ConfigError
from tonnage.models.profile import Layer
from tonnage.models.sheet import Sheet

_STYLE: Final = Style(windows=Windows.ALL, per_layer=False, every_stage=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    hidden: int
    heads: int
    query_rank: int
    latent_rank: int
    plain_size: int
    rotated_size: int
    value_size: int

    @property
    def key_size(self) -> int:
        return self.plain_size + self.rotated_size


def read_minicpm3(source: Source) -> Body:
    """The body of a MiniCPM3; keys of a rank's heads are cached, and values padded to their size.

    `head_size` is the rotated part alone, as transformers 5.19.0 `MiniCPM3Config` says. Raises
    `ConfigError`.
    """
    if source.fields.raw("num_experts"):
        raise ConfigError("UnsupportedAttention", "config.json: num_experts of MiniCPM3 is not planned")
    shape = _shape(source)
    intermediate = source.size("intermediate_size")
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    return Body(
        layers=tuple(
            _layer(source, shape, index=index, window=window, intermediate=intermediate)
            for index, window in enumerate(window_tokens(source, _STYLE))
        ),
        outside=outside(source, _STYLE, hidden=shape.hidden, vocabulary=vocabulary),
        hidden_size=shape.hidden,
        vocab_size=vocabulary,
        num_attention_heads=shape.heads,
        head_size=shape.rotated_size,
        head_elements=2 * shape.key_size,
    )


def _shape(source: Source) -> _Shape:
    hidden, heads = source.hidden, source.size("num_attention_heads", high=MAX_HEADS)
    if hidden % heads:
        source.fields.fail("hidden_size", f"is {hidden}, not a multiple of the {heads} attention heads")
    value_size = source.optional_size("v_head_dim", low=1, high=MAX_HEAD_SIZE)
    return _Shape(
        hidden=hidden,
        heads=heads,
        query_rank=source.size("q_lora_rank"),
        latent_rank=source.size("kv_lora_rank"),
        plain_size=source.size("qk_nope_head_dim", high=MAX_HEAD_SIZE),
        rotated_size=source.size("qk_rope_head_dim", high=MAX_HEAD_SIZE),
        value_size=value_size or hidden // heads,
    )


def _layer(source: Source, shape: _Shape, *, index: int, window: int | None, intermediate: int) -> Layer:
    sheet = source.sheet(f"model.layers.{index}.")
    _attention(sheet, shape)
    cached = AttentionShape(
        hidden=shape.hidden, query_heads=shape.heads, kv_heads=shape.heads, head_size=shape.key_size
    )
    sheet.cache(cache_of(cached, window=window))
    mlp(sheet, "mlp", hidden=shape.hidden, intermediate=intermediate, gated=True)
    sheet.vector(shape.hidden, count=2)
    return sheet.layer()


def _attention(sheet: Sheet, shape: _Shape) -> None:
    heads, latent = shape.heads, shape.latent_rank
    sheet.replicated("self_attn.q_a_proj", shape.hidden, shape.query_rank)
    sheet.column_parallel("self_attn.q_b_proj", shape.query_rank, heads * shape.key_size)
    sheet.replicated("self_attn.kv_a_proj_with_mqa", shape.hidden, latent + shape.rotated_size)
    sheet.column_parallel("self_attn.kv_b_proj", latent, heads * (shape.plain_size + shape.value_size))
    sheet.row_parallel("self_attn.o_proj", heads * shape.value_size, shape.hidden)
    sheet.attention("self_attn.attn")
    sheet.vector(shape.query_rank)
    sheet.vector(latent)
