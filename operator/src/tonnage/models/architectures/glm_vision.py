"""GLM-4.1V and GLM-4.5V.

Read in vLLM 0.32.0 `model_executor/models/glm4_1v.py`; defaults in transformers 5.19.0
`models/{glm4v,glm4v_moe}/configuration_*.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    any_tied,
    encoder_attention,
    encoder_of,
    layer_norms,
    pair_of,
    part,
    patches_of,
    quant_method,
    read_text,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import Body, Source
from tonnage.models.decoder import mlp
from tonnage.models.fields import Fields
from tonnage.models.sheet import Sheet

_VISION: Final = {
    "depth": 24,
    "hidden_size": 1536,
    "num_heads": 12,
    "in_channels": 3,
    "image_size": 336,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 4096,
    "intermediate_size": 13696,
}


def read_glm4v(source: Source) -> Body:
    """GLM-4.1V on GLM-4 and GLM-4.5V on GLM-4.5. Raises `ConfigError`."""
    fields = part(source, "vision_config", _VISION)
    body = read_text(source, tied=any_tied(source))
    return with_towers(body, _encoder(source, fields))


def _encoder(source: Source, fields: Fields) -> Sheet:
    """The layers' MLPs are as wide as the output, the merger's is as wide as `intermediate_size`."""
    encoder = encoder_of(fields, heads="num_heads", layers="depth")
    hidden, out = encoder.hidden, size_of(fields, "out_hidden_size")
    sheet = tower(source, "visual.")
    _patches(sheet, fields, hidden)
    qkv = "qkv_proj" if quant_method(source) == "compressed-tensors" else "qkv"
    for index in range(encoder.layers):
        block = f"blocks.{index}"
        sheet.vector(hidden, count=2)
        encoder_attention(sheet, encoder, qkv=f"{block}.attn.{qkv}", output=f"{block}.attn.proj", bias=False)
        mlp(sheet, f"{block}.mlp", hidden=hidden, intermediate=out, gated=True)
    sheet.column_parallel("merger.proj", out, out)
    layer_norms(sheet, out)
    mlp(sheet, "merger", hidden=out, intermediate=encoder.intermediate, gated=True)
    merge = size_of(fields, "spatial_merge_size", high=MAX_KERNEL)
    sheet.tensor(out, hidden, merge, merge)
    sheet.vector(out)
    sheet.vector(hidden, count=2)
    return sheet


def _patches(sheet: Sheet, fields: Fields, hidden: int) -> None:
    channels, frames = (
        size_of(fields, name, high=MAX_KERNEL) for name in ("in_channels", "temporal_patch_size")
    )
    sheet.tensor(hidden, channels, frames, *pair_of(fields, "patch_size"))
    sheet.vector(hidden)
    sheet.tensor(patches_of(fields), hidden)
