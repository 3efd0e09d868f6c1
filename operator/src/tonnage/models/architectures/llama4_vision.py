"""Llama 4 with its vision encoder, no part of which is ever quantized.

Read in vLLM 0.32.0 `model_executor/models/mllama4.py`; defaults in transformers 5.19.0
`models/llama4/configuration_llama4.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    encoder_attention,
    encoder_mlp,
    encoder_of,
    layer_norms,
    pair_of,
    part,
    patches_of,
    read_text,
    root_tied,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import Body, Source
from tonnage.models.fields import Fields
from tonnage.models.sheet import Sheet

_VISION: Final = {
    "hidden_size": 768,
    "num_hidden_layers": 34,
    "num_attention_heads": 16,
    "num_channels": 3,
    "intermediate_size": 5632,
    "vision_output_dim": 7680,
    "image_size": 448,
    "patch_size": 14,
    "projector_input_dim": 4096,
    "projector_output_dim": 4096,
}


def read_llama4_vision(source: Source) -> Body:
    """Llama 4 as published: text and images. Raises `ConfigError`."""
    fields = part(source, "vision_config", _VISION)
    body = read_text(source, tied=root_tied(source, default=False))
    return with_towers(body, _encoder(source, fields, text_hidden=body.hidden_size))


def _encoder(source: Source, fields: Fields, *, text_hidden: int) -> Sheet:
    encoder = encoder_of(fields)
    sheet = tower(source, "vision_model.", quantized=False)
    sheet.vector(encoder.hidden)
    sheet.tensor(patches_of(fields) + 1, encoder.hidden)
    height, width = pair_of(fields, "patch_size")
    pixels = size_of(fields, "num_channels", high=MAX_KERNEL) * height * width
    sheet.column_parallel("patch_embedding.linear", pixels, encoder.hidden)
    layer_norms(sheet, encoder.hidden, count=2)
    for index in range(encoder.layers):
        layer = f"model.layers.{index}"
        encoder_attention(
            sheet, encoder, qkv=f"{layer}.self_attn.qkv_proj", output=f"{layer}.self_attn.o_proj"
        )
        encoder_mlp(sheet, encoder, inward=f"{layer}.mlp.fc1", outward=f"{layer}.mlp.fc2")
        layer_norms(sheet, encoder.hidden, count=2)
    _adapter(sheet, fields, encoder.intermediate)
    sheet.column_parallel("linear_1", size_of(fields, "vision_output_dim"), text_hidden)
    return sheet


def _adapter(sheet: Sheet, fields: Fields, width: int) -> None:
    """The MLP after patches are shuffled together, which makes them as wide as the encoder's own MLPs."""
    inner = size_of(fields, "projector_input_dim")
    bias = fields.flag("multi_modal_projector_bias")
    sheet.column_parallel("vision_adapter.mlp.fc1", width, inner, bias=bias)
    sheet.row_parallel("vision_adapter.mlp.fc2", inner, size_of(fields, "projector_output_dim"), bias=bias)
