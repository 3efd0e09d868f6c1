"""InternVL in the format of transformers. Its encoder is never quantized; attention is whole on every rank.

Read in vLLM 0.32.0 `model_executor/models/{interns1,interns1_vit}.py`; defaults in transformers 5.19.0
`models/internvl/configuration_internvl.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    Encoder,
    encoder_mlp,
    encoder_of,
    layer_norms,
    pair_of,
    part,
    read_any_text,
    root_tied,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import Body, Source
from tonnage.models.fields import Fields
from tonnage.models.sheet import Sheet

_VISION: Final = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "norm_type": "layer_norm",
    "image_size": [448, 448],
    "patch_size": [14, 14],
    "num_channels": 3,
    "use_absolute_position_embeddings": True,
    "use_mean_pooling": True,
}
_NORM_VECTORS: Final = {"layer_norm": 2, "rms_norm": 1}


def read_internvl(source: Source) -> Body:
    """InternVL before a text model of any family. Raises `ConfigError`."""
    fields = part(source, "vision_config", _VISION)
    body = read_any_text(source, tied=root_tied(source, default=True))
    sheet = tower(source, "vision_tower.", quantized=False)
    encoder = encoder_of(fields)
    _embeddings(sheet, fields, encoder.hidden)
    for index in range(encoder.layers):
        _layer(sheet, fields, encoder, f"encoder.layer.{index}")
    if not fields.flag("use_mean_pooling"):
        layer_norms(sheet, encoder.hidden)
    merged = encoder.hidden * _shuffled(source) ** 2
    layer_norms(sheet, merged)
    sheet.replicated("multi_modal_projector.linear_1", merged, body.hidden_size, bias=True)
    sheet.replicated("multi_modal_projector.linear_2", body.hidden_size, body.hidden_size, bias=True)
    return with_towers(body, sheet)


def _embeddings(sheet: Sheet, fields: Fields, hidden: int) -> None:
    image, patch = pair_of(fields, "image_size"), pair_of(fields, "patch_size")
    sheet.vector(hidden)
    if fields.flag("use_mask_token"):
        sheet.vector(hidden)
    sheet.tensor(hidden, size_of(fields, "num_channels", high=MAX_KERNEL), *patch)
    sheet.vector(hidden)
    if fields.flag("use_absolute_position_embeddings"):
        sheet.tensor((image[0] // patch[0]) * (image[1] // patch[1]) + 1, hidden)


def _layer(sheet: Sheet, fields: Fields, encoder: Encoder, layer: str) -> None:
    hidden, bias = encoder.hidden, fields.flag("attention_bias")
    for name in ("q_proj", "k_proj", "v_proj"):
        sheet.replicated(f"{layer}.attention.{name}", hidden, hidden, bias=bias)
    if fields.flag("use_qk_norm"):
        sheet.vector(hidden, count=2)
    sheet.replicated(f"{layer}.attention.projection_layer", hidden, hidden, bias=True)
    encoder_mlp(sheet, encoder, inward=f"{layer}.mlp.fc1", outward=f"{layer}.mlp.fc2")
    sheet.vector(hidden, count=2 * _norm_vectors(fields))
    sheet.vector(hidden, count=2)


def _norm_vectors(fields: Fields) -> int:
    kind = fields.optional_text("norm_type")
    if kind not in _NORM_VECTORS:
        fields.fail("norm_type", f"is {kind!r}; the engine knows {', '.join(sorted(_NORM_VECTORS))}")
    return _NORM_VECTORS[kind]


def _shuffled(source: Source) -> int:
    """Patches along each side of the square that becomes one token."""
    root = source.root.replaced(defaults={"downsample_ratio": 0.5})
    ratio = root.optional_number("downsample_ratio", low=1 / MAX_KERNEL, high=1)
    if ratio is None:
        root.fail("downsample_ratio", "is null")
    return int(1 / ratio)
