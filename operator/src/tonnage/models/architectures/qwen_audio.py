"""Qwen's models that hear: Qwen2-Audio, Qwen2.5-Omni and Qwen3-Omni, of which the engine runs the thinker.

No audio encoder is ever quantized; the older two are whole on every rank. Read in vLLM 0.32.0
`model_executor/models/{qwen2_audio,qwen2_5_omni_thinker,qwen3_omni_moe_thinker}.py`; the older encoders and
all defaults in transformers 5.19.0 `models/{qwen2_audio,qwen2_5_omni,qwen3_omni_moe}`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tonnage.models.architectures.qwen_vision import QWEN2_5, qwen2_5_encoder, qwen3_omni_encoder
from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    Encoder,
    encoder_attention,
    encoder_mlp,
    encoder_of,
    layer_norms,
    part,
    read_text,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import MAX_CONTEXT, Body, Source
from tonnage.models.fields import Fields
from tonnage.models.sheet import Sheet

_AUDIO: Final = {
    "num_mel_bins": 128,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "d_model": 1280,
    "max_source_positions": 1500,
}
_OMNI_AUDIO: Final = {**_AUDIO, "output_dim": 3584, "downsample_hidden_size": 480}
_PATH: Final = "audio_tower."


def read_qwen2_audio(source: Source) -> Body:
    """Qwen2-Audio. Raises `ConfigError`."""
    fields = part(source, "audio_config", _AUDIO)
    encoder = _sizes(fields)
    body = read_text(source, tied=_tied(source))
    sheet = tower(source, _PATH, quantized=False)
    _whole_encoder(sheet, fields, encoder)
    sheet.tensor(size_of(fields, "max_source_positions", high=MAX_CONTEXT), encoder.hidden)
    sheet.replicated("projector", encoder.hidden, body.hidden_size, bias=True)
    return with_towers(body, sheet)


def read_qwen2_5_omni(source: Source) -> Body:
    """Qwen2.5-Omni's thinker. Raises `ConfigError`."""
    thinker = _thinker(source)
    fields = part(thinker, "audio_config", _OMNI_AUDIO)
    encoder = _sizes(fields)
    audio = tower(source, _PATH, quantized=False)
    _whole_encoder(audio, fields, encoder)
    out = size_of(fields, "output_dim")
    audio.tensor(2, out)
    audio.replicated("proj", encoder.hidden, out, bias=True)
    vision = tower(source, "visual.")
    qwen2_5_encoder(vision, part(thinker, "vision_config", QWEN2_5))
    return with_towers(read_text(source, tied=_tied(source)), audio, vision)


def read_qwen3_omni(source: Source) -> Body:
    """Qwen3-Omni's thinker. Raises `ConfigError`."""
    thinker = _thinker(source)
    audio = _qwen3_encoder(source, part(thinker, "audio_config", _OMNI_AUDIO))
    vision = qwen3_omni_encoder(source, thinker)
    return with_towers(read_text(source, tied=_tied(source)), audio, vision)


def _thinker(source: Source) -> Source:
    """The source with the thinker's config for the whole one."""
    return replace(source, root=part(source, "thinker_config", {}))


def _tied(source: Source) -> bool:
    """The whole config's word if it has one: its class has no such field."""
    if source.root.raw("tie_word_embeddings") is not None:
        return source.root.flag("tie_word_embeddings")
    return source.fields.flag("tie_word_embeddings")


def _sizes(fields: Fields, *, whole_if_uneven: bool = False) -> Encoder:
    return encoder_of(
        fields,
        whole_if_uneven=whole_if_uneven,
        hidden="d_model",
        heads="encoder_attention_heads",
        intermediate="encoder_ffn_dim",
        layers="encoder_layers",
    )


def _whole_encoder(sheet: Sheet, fields: Fields, encoder: Encoder) -> None:
    """Two convolutions over the bands of sound, then layers whose keys have no bias."""
    hidden = encoder.hidden
    for inputs in (size_of(fields, "num_mel_bins", high=MAX_KERNEL), hidden):
        sheet.tensor(hidden, inputs, 3)
        sheet.vector(hidden)
    for index in range(encoder.layers):
        layer = f"layers.{index}"
        sheet.replicated(f"{layer}.self_attn.k_proj", hidden, hidden)
        for name in ("q_proj", "v_proj", "out_proj"):
            sheet.replicated(f"{layer}.self_attn.{name}", hidden, hidden, bias=True)
        sheet.replicated(f"{layer}.fc1", hidden, encoder.intermediate, bias=True)
        sheet.replicated(f"{layer}.fc2", encoder.intermediate, hidden, bias=True)
        layer_norms(sheet, hidden, count=2)
    layer_norms(sheet, hidden)


def _qwen3_encoder(source: Source, fields: Fields) -> Sheet:
    """Three convolutions that halve time and bands, then layers that ranks divide."""
    encoder = _sizes(fields, whole_if_uneven=True)
    hidden, channels = encoder.hidden, size_of(fields, "downsample_hidden_size")
    sheet = tower(source, _PATH, quantized=False)
    for inputs in (1, channels, channels):
        sheet.tensor(channels, inputs, 3, 3)
        sheet.vector(channels)
    bands = size_of(fields, "num_mel_bins", high=MAX_KERNEL)
    for _ in range(3):
        bands = (bands + 1) // 2
    sheet.replicated("conv_out", channels * bands, hidden)
    for index in range(encoder.layers):
        layer = f"layers.{index}"
        encoder_attention(
            sheet, encoder, qkv=f"{layer}.self_attn.qkv_proj", output=f"{layer}.self_attn.out_proj"
        )
        encoder_mlp(sheet, encoder, inward=f"{layer}.fc1", outward=f"{layer}.fc2")
        layer_norms(sheet, hidden, count=2)
    layer_norms(sheet, hidden)
    sheet.replicated("proj1", hidden, hidden, bias=True)
    sheet.replicated("proj2", hidden, size_of(fields, "output_dim"), bias=True)
    return sheet
