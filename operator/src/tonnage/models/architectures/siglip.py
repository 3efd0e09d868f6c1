"""The SigLIP, CLIP and Pixtral encoders that several wrappers share.

Read in vLLM 0.32.0 `model_executor/models/{siglip,clip,pixtral,idefics2_vision_model}.py`; defaults in
transformers 5.19.0 `models/{siglip,clip,pixtral}/configuration_*.py`.
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
    pair_of,
    patches_of,
    quant_method,
    size_of,
    tower,
    whole_tiles,
)
from tonnage.models.body import Source
from tonnage.models.decoder import mlp
from tonnage.models.fields import Fields
from tonnage.models.sheet import Sheet

SIGLIP: Final = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
}
CLIP: Final = {**SIGLIP, "patch_size": 32}
PIXTRAL: Final = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 1024,
    "patch_size": 16,
}
_ANY_SIZE: Final = frozenset({"bitsandbytes", "torchao"})


def siglip_encoder(
    source: Source,
    fields: Fields,
    *,
    path: str,
    layers: int | None = None,
    post_norm: bool = True,
    any_size: bool = False,
) -> tuple[Sheet, ...]:
    """SigLIP with its first `layers` (None: all), and with the norm after them if `post_norm`.

    MLPs whose sizes are no whole tiles are not quantized, unless `any_size` or the method takes them.
    """
    encoder = encoder_of(fields)
    sheet = tower(source, path)
    tiles = any_size or whole_tiles(encoder) or quant_method(source) in _ANY_SIZE
    mlps = tower(source, path, quantized=tiles)
    _patches(sheet, fields, encoder, bias=True)
    sheet.tensor(patches_of(fields), encoder.hidden)
    for index in range(encoder.layers if layers is None else layers):
        _block(sheet, mlps, encoder, f"encoder.layers.{index}")
    if post_norm:
        layer_norms(sheet, encoder.hidden)
    return sheet, mlps


def clip_encoder(source: Source, fields: Fields, *, path: str, layers: int) -> tuple[Sheet, ...]:
    """CLIP with its first `layers` and without the norm after them."""
    encoder = encoder_of(fields)
    sheet = tower(source, path)
    sheet.vector(encoder.hidden)
    _patches(sheet, fields, encoder, bias=False)
    sheet.tensor(patches_of(fields) + 1, encoder.hidden)
    layer_norms(sheet, encoder.hidden)
    for index in range(layers):
        _block(sheet, sheet, encoder, f"encoder.layers.{index}")
    return (sheet,)


def pixtral_encoder(source: Source, fields: Fields, *, path: str, layers: int) -> tuple[Sheet, ...]:
    """Pixtral's encoder with its first `layers`."""
    encoder = encoder_of(fields)
    sheet = tower(source, path)
    _patches(sheet, fields, encoder, bias=False)
    sheet.vector(encoder.hidden)
    for index in range(layers):
        block = f"transformer.layers.{index}"
        sheet.vector(encoder.hidden, count=2)
        encoder_attention(
            sheet, encoder, qkv=f"{block}.attention.qkv_proj", output=f"{block}.attention.o_proj", bias=False
        )
        mlp(
            sheet,
            f"{block}.feed_forward",
            hidden=encoder.hidden,
            intermediate=encoder.intermediate,
            gated=True,
        )
    return (sheet,)


def _block(sheet: Sheet, mlps: Sheet, encoder: Encoder, block: str) -> None:
    layer_norms(sheet, encoder.hidden, count=2)
    encoder_attention(sheet, encoder, qkv=f"{block}.self_attn.qkv_proj", output=f"{block}.self_attn.out_proj")
    encoder_mlp(mlps, encoder, inward=f"{block}.mlp.fc1", outward=f"{block}.mlp.fc2")


def _patches(sheet: Sheet, fields: Fields, encoder: Encoder, *, bias: bool) -> None:
    height, width = pair_of(fields, "patch_size")
    sheet.tensor(encoder.hidden, size_of(fields, "num_channels", high=MAX_KERNEL), height, width)
    if bias:
        sheet.vector(encoder.hidden)
