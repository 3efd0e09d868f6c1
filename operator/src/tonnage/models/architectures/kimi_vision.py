"""Kimi's multimodal models: MoonViT before latent attention.

Read in vLLM 0.32.0 `model_executor/models/{kimi_vl,moonvit,kimi_k25,kimi_k25_vit}.py`; defaults of the
encoders in vLLM's `transformers_utils/configs/moonvit.py` and transformers 5.19.0
`models/kimi_k25/configuration_kimi_k25.py`, which reads none of the older names that published Kimi-K2.5
configs have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tonnage.models.architectures.wrapped import (
    MAX_SIDE,
    Encoder,
    encoder_attention,
    encoder_mlp,
    encoder_of,
    layer_norms,
    pair_of,
    part,
    quant_method,
    read_text,
    root_tied,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import Body, Source
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.parameters import MODEL
from tonnage.models.sheet import Sheet

_MOONVIT: Final = {
    "patch_size": 14,
    "init_pos_emb_height": 64,
    "init_pos_emb_width": 64,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "merge_kernel_size": [2, 2],
}
_K25: Final = {
    **{name: value for name, value in _MOONVIT.items() if not name.startswith("init_")},
    "pos_emb_height": 64,
    "pos_emb_width": 64,
}
_USUAL: Final[Mapping[str, object]] = {
    "attn_bias": True,
    "linear_bias": True,
    "mlp_type": "mlp2",
    "mm_projector_type": "patchmerger",
    "norm_type": "layernorm",
    "patch_embed_proj_bias": True,
    "qkv_hidden_size": None,
}
"""What the encoder's optional fields say in all published Kimi-K2.5 configs, or would if they were there."""

_CHANNELS: Final = 3
_FLOATS: Final = frozenset({"bfloat16", "float16", "float32", "float8"})


def read_kimi_vl(source: Source) -> Body:
    """Kimi-VL, whose encoder is never quantized. Raises `ConfigError`."""
    fields = part(source, "vision_config", _MOONVIT)
    sheet = tower(source, "", quantized=False)
    table = (size_of(fields, "init_pos_emb_height"), size_of(fields, "init_pos_emb_width"))
    _moonvit(sheet, fields, encoder_of(fields), table)
    body = _text(source)
    _projector(sheet, fields, "multi_modal_projector", text_hidden=body.hidden_size)
    return with_towers(body, sheet)


def read_kimi_k25(source: Source) -> Body:
    """Kimi-K2.5, whose encoder is left as it is where the text model is in compressed-tensors' format.

    The engine converts the projection to the model's dtype as soon as it is made. Raises `ConfigError`.
    """
    fields = part(source, "vision_config", _K25)
    _refuse_variants(fields)
    quantized = quant_method(source) != "compressed-tensors"
    sheet, projector = tower(source, "", quantized=quantized), tower(source, "", quantized=quantized)
    table = (_table_side(fields, "height"), _table_side(fields, "width"))
    _moonvit(sheet, fields, encoder_of(fields, whole_if_uneven=True), table)
    body = _text(source)
    _projector(projector, fields, "mm_projector", text_hidden=body.hidden_size)
    converted = [
        replace(tensor, element=MODEL) if tensor.element in _FLOATS else tensor
        for tensor in projector.parameters
    ]
    return with_towers(body, sheet, tensors=converted)


def _text(source: Source) -> Body:
    return read_text(source, tied=root_tied(source, default=True))


def _moonvit(sheet: Sheet, fields: Fields, encoder: Encoder, table: tuple[int, int]) -> None:
    """Write down the encoder; `table` is the height and width of its positions."""
    patch = pair_of(fields, "patch_size")
    sheet.tensor(encoder.hidden, _CHANNELS, *patch)
    sheet.vector(encoder.hidden)
    sheet.tensor(*table, encoder.hidden)
    for index in range(encoder.layers):
        block = f"vision_tower.encoder.blocks.{index}"
        layer_norms(sheet, encoder.hidden, count=2)
        encoder_mlp(sheet, encoder, inward=f"{block}.mlp.fc0", outward=f"{block}.mlp.fc1")
        encoder_attention(sheet, encoder, qkv=f"{block}.wqkv", output=f"{block}.wo")
    layer_norms(sheet, encoder.hidden)


def _projector(sheet: Sheet, fields: Fields, path: str, *, text_hidden: int) -> None:
    """A norm, then two linear layers for the patches that become one token."""
    hidden = size_of(fields, "hidden_size")
    height, width = pair_of(fields, "merge_kernel_size")
    merged = hidden * height * width
    layer_norms(sheet, hidden)
    sheet.replicated(f"{path}.linear_1", merged, merged, bias=True)
    sheet.replicated(f"{path}.linear_2", merged, text_hidden, bias=True)


def _table_side(fields: Fields, side: str) -> int:
    """The position table's side; the older name wins."""
    older = fields.optional_integer(f"init_pos_emb_{side}", low=1, high=MAX_SIDE)
    return older if older is not None else size_of(fields, f"pos_emb_{side}")


def _refuse_variants(fields: Fields) -> None:
    for name, usual in _USUAL.items():
        stated = fields.raw(name)
        if stated is not None and stated != usual:
            raise ConfigError(
                "UnsupportedAttention", f"config.json vision_config: {name} is {stated!r:.60}; not planned"
            )
