"""Whisper: an audio encoder, and a decoder whose layers keep its output besides what they generate.

Read in vLLM 0.32.0 `model_executor/models/whisper.py`; defaults in transformers 5.19.0
`models/whisper/configuration_whisper.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    Encoder,
    encoder_attention,
    encoder_mlp,
    encoder_of,
    layer_norms,
)
from tonnage.models.body import MAX_CONTEXT, MAX_VOCABULARY, Body, Source
from tonnage.models.errors import ConfigError
from tonnage.models.parameters import ranks, whole
from tonnage.models.profile import CrossAttention, FullAttention, Layer, Outside, Trait
from tonnage.models.sheet import Sheet

_KERNEL: Final = 3


def read_whisper(source: Source) -> Body:
    """Whisper. The token table makes the logits whatever the config says; all of it is whole on every rank.

    A request's encoder output always takes `max_source_positions` tokens. Raises `ConfigError`.
    """
    _refuse_causal(source)
    encoder = _sizes(source, "encoder")
    decoder = _sizes(source, "decoder")
    vocabulary = source.size("vocab_size", high=MAX_VOCABULARY)
    source_tokens = source.size("max_source_positions", high=MAX_CONTEXT)
    head_size = decoder.hidden // decoder.heads
    table = source.sheet("")
    table.tensor(vocabulary, decoder.hidden)
    first, last = source.sheet(""), source.sheet("")
    _audio_encoder(
        first, encoder, bands=source.size("num_mel_bins", high=MAX_KERNEL), positions=source_tokens
    )
    first.tensor(source.size("max_target_positions", high=MAX_CONTEXT), decoder.hidden)
    layer_norms(last, decoder.hidden)
    return Body(
        layers=tuple(_layer(source, decoder, index) for index in range(decoder.layers)),
        outside=Outside(first=first.parameters, last=last.parameters, embedding=table.parameters, tied=True),
        hidden_size=decoder.hidden,
        vocab_size=vocabulary,
        num_attention_heads=encoder.heads,
        head_size=head_size,
        head_elements=2 * head_size,
        traits=frozenset({Trait.MULTIMODAL, Trait.ONE_STAGE}),
        encoder_tokens=source_tokens,
    )


def _audio_encoder(sheet: Sheet, encoder: Encoder, *, bands: int, positions: int) -> None:
    """Write down the encoder: two convolutions over the bands of sound, positions, layers."""
    hidden = encoder.hidden
    for inputs in (bands, hidden):
        sheet.tensor(hidden, inputs, _KERNEL)
        sheet.vector(hidden)
    sheet.tensor(positions, hidden)
    for index in range(encoder.layers):
        layer = f".encoder.layers.{index}.layers"
        encoder_attention(
            sheet, encoder, qkv=f"{layer}.self_attn.qkv_proj", output=f"{layer}.self_attn.out_proj"
        )
        encoder_mlp(sheet, encoder, inward=f"{layer}.mlp.fc1", outward=f"{layer}.mlp.fc2")
        layer_norms(sheet, hidden, count=2)
    layer_norms(sheet, hidden)


def _sizes(source: Source, side: str) -> Encoder:
    return encoder_of(
        source.fields,
        hidden="d_model",
        heads=f"{side}_attention_heads",
        intermediate=f"{side}_ffn_dim",
        layers=f"{side}_layers",
    )


def _layer(source: Source, decoder: Encoder, index: int) -> Layer:
    """Attention to what was generated and to the encoder's output, each with a cache."""
    sheet = source.sheet(f".decoder.layers.{index}.layers.")
    head_size = decoder.hidden // decoder.heads
    encoder_attention(sheet, decoder, qkv="self_attn.qkv_proj", output="self_attn.out_proj")
    sheet.attention("self_attn.attn")
    _cross_attention(sheet, decoder)
    encoder_mlp(sheet, decoder, inward="mlp.fc1", outward="mlp.fc2")
    layer_norms(sheet, decoder.hidden, count=3)
    sheet.cache(
        FullAttention(kv_heads=decoder.heads, head_size=head_size, head_size_v=head_size),
        CrossAttention(kv_heads=decoder.heads, head_size=head_size, head_size_v=head_size),
    )
    return sheet.layer()


def _cross_attention(sheet: Sheet, decoder: Encoder) -> None:
    hidden = decoder.hidden
    share = ranks(hidden, heads=decoder.heads)
    sheet.matrix("encoder_attn.q_proj", [share], whole(hidden), bias=True)
    sheet.matrix("encoder_attn.kv_proj", [share, share], whole(hidden), bias=True)
    sheet.row_parallel("encoder_attn.out_proj", hidden, hidden, bias=True)
    sheet.attention("encoder_attn.attn")


def _refuse_causal(source: Source) -> None:
    """Fields that other readers of this encoder have; Whisper itself reads two of them."""
    for name, usual in (("sliding_window", None), ("pos_embed", "sinusoidal")):
        stated = source.fields.raw(name)
        if stated is not None and stated != usual:
            raise ConfigError(
                "UnsupportedAttention", f"config.json: {source.architecture} sets {name}; not planned"
            )
