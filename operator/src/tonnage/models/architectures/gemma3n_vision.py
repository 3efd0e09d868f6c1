"""Gemma 3n with its encoders of images and audio. The engine runs it on one stage only.

Nothing but the text model is ever quantized. Read in vLLM 0.32.0 `model_executor/models/gemma3n_mm.py`; the
audio encoder and all defaults in transformers 5.19.0 `models/gemma3n/{modeling,configuration}_gemma3n.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    integers,
    layers_of,
    part,
    read_text,
    root_tied,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import MAX_HEADS, MAX_VOCABULARY, Body, Source
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import ranks
from tonnage.models.profile import Trait
from tonnage.models.sheet import Sheet

_VISION: Final = {"architecture": "mobilenetv5_300m_enc", "hidden_size": 2048, "vocab_size": 128}
_AUDIO: Final = {
    "vocab_size": 128,
    "input_feat_size": 128,
    "hidden_size": 1536,
    "conf_num_attention_heads": 8,
    "conf_num_hidden_layers": 12,
    "conf_conv_kernel_size": 5,
    "sscp_conv_channel_size": [128, 32],
}
_ENCODERS: Final[Mapping[str, int]] = {"mobilenetv5_300m_enc": 294_126_912}
"""Elements of the vision encoders of timm 1.0 by name, which alone describes them."""

_USUAL: Final = {"sscp_conv_kernel_size": [[3, 3], [3, 3]], "sscp_conv_stride_size": [[2, 2], [2, 2]]}


def read_gemma3n_multimodal(source: Source) -> Body:
    """Gemma 3n as published: text, images and audio. Raises `ConfigError`."""
    body = read_text(source, tied=root_tied(source, default=True))
    vision, audio = part(source, "vision_config", _VISION), part(source, "audio_config", _AUDIO)
    sheet = tower(source, "", quantized=False)
    sheet.vector(_vision_elements(vision))
    _embedder(sheet, vision, body.hidden_size)
    _audio_encoder(sheet, audio)
    _embedder(sheet, audio, body.hidden_size)
    return with_towers(body, sheet, traits=frozenset({Trait.ONE_STAGE}))


def _vision_elements(fields: Fields) -> int:
    name = fields.optional_text("architecture")
    elements = _ENCODERS.get(name or "")
    if elements is None or fields.raw("model_args"):
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json vision_config: the encoder {name!r} or its model_args are not known; known: "
            f"{', '.join(sorted(_ENCODERS))}",
        )
    return elements


def _embedder(sheet: Sheet, fields: Fields, text_hidden: int) -> None:
    """A table for tokens that stand for the input, two norms, and the way into the text model."""
    hidden = size_of(fields, "hidden_size")
    sheet.embedding(size_of(fields, "vocab_size", high=MAX_VOCABULARY), hidden)
    sheet.vector(hidden, count=2)
    sheet.tensor(text_hidden, ranks(hidden))


def _audio_encoder(sheet: Sheet, fields: Fields) -> None:
    hidden = size_of(fields, "hidden_size")
    heads = size_of(fields, "conf_num_attention_heads", high=MAX_HEADS)
    if hidden % heads:
        fields.fail("hidden_size", f"is {hidden}, which {heads} attention heads do not divide")
    _subsampling(sheet, fields, hidden)
    kernel = size_of(fields, "conf_conv_kernel_size", high=MAX_KERNEL)
    for _ in range(layers_of(fields, "conf_num_hidden_layers")):
        _conformer(sheet, hidden, head_size=hidden // heads, kernel=kernel)


def _subsampling(sheet: Sheet, fields: Fields, hidden: int) -> None:
    """Two convolutions that halve time and frequency each."""
    for name, usual in _USUAL.items():
        if fields.raw(name) not in (None, usual):
            raise ConfigError("UnsupportedAttention", f"config.json audio_config: {name} is not {usual}")
    channels = integers(fields, "sscp_conv_channel_size", most=2, low=1)
    if len(channels) != 2:
        fields.fail("sscp_conv_channel_size", "does not name the channels of two convolutions")
    frequencies = size_of(fields, "input_feat_size")
    for before, after in ((1, channels[0]), channels):
        sheet.tensor(after, before, 3, 3)
        sheet.vector(after)
        frequencies = (frequencies - 1) // 2 + 1
    sheet.tensor(hidden, channels[1] * frequencies)


def _conformer(sheet: Sheet, hidden: int, *, head_size: int, kernel: int) -> None:
    """Attention and a convolution between two halves of a feed-forward network; a norm before and after
    each of the four but the convolution, which has one before and one inside, and one at the end."""
    for _ in range(2):
        sheet.tensor(4 * hidden, hidden)
        sheet.tensor(hidden, 4 * hidden)
    for _ in range(5):
        sheet.tensor(hidden, hidden)
    sheet.vector(head_size)
    sheet.tensor(2 * hidden, hidden)
    sheet.tensor(hidden, 1, kernel)
    sheet.tensor(hidden, hidden)
    sheet.vector(hidden, count=9)
