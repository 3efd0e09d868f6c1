"""Qwen's vision-language models: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5.

Read in vLLM 0.32.0 `model_executor/models/{qwen2_vl,qwen2_5_vl,qwen3_vl,qwen3_vl_moe,qwen3_5}.py`;
defaults of the encoders in transformers 5.19.0 `models/{qwen2_vl,qwen2_5_vl,qwen3_vl}/configuration_*.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    Encoder,
    any_tied,
    encoder_attention,
    encoder_mlp,
    encoder_of,
    encoder_output,
    integers,
    layer_norms,
    part,
    read_text,
    root_tied,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import MAX_LAYERS, Body, Source
from tonnage.models.decoder import mlp
from tonnage.models.fields import Fields
from tonnage.models.parameters import ranks, whole
from tonnage.models.sheet import Sheet

_QWEN2: Final = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
QWEN2_5: Final = {
    "depth": 32,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 3584,
}
_QWEN3_5: Final = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 3584,
    "num_position_embeddings": 2304,
}
_QWEN3: Final = {**_QWEN3_5, "deepstack_visual_indexes": [8, 16, 24]}
"""Qwen3-Omni's too; its own class adds no more."""
_PATH: Final = "visual."


def read_qwen2_vl(source: Source) -> Body:
    """Qwen2-VL, whose fused queries, keys and values are one layer to quantization. Raises `ConfigError`."""
    fields = part(source, "vision_config", _QWEN2)
    sheet = tower(source, _PATH)
    hidden = size_of(fields, "embed_dim")
    ratio = size_of(fields, "mlp_ratio", high=MAX_KERNEL)
    inner = fields.replaced({"intermediate_size": hidden * ratio})
    encoder = encoder_of(inner, hidden="embed_dim", heads="num_heads", layers="depth")
    _patches(sheet, fields, hidden, bias=False)
    for index in range(encoder.layers):
        block = f"blocks.{index}"
        layer_norms(sheet, hidden, count=2)
        fused = ranks(3 * hidden, heads=encoder.heads)
        sheet.matrix(f"{block}.attn.qkv", [fused], whole(hidden), bias=True)
        encoder_output(sheet, encoder, f"{block}.attn.proj", bias=True)
        encoder_mlp(sheet, encoder, inward=f"{block}.mlp.fc1", outward=f"{block}.mlp.fc2")
    layer_norms(sheet, hidden)
    _merger(sheet, ("merger.mlp.0", "merger.mlp.2"), _merged(fields, hidden), size_of(fields, "hidden_size"))
    return with_towers(read_text(source, tied=any_tied(source)), sheet)


def read_qwen2_5_vl(source: Source) -> Body:
    """Qwen2.5-VL. Raises `ConfigError`."""
    sheet = tower(source, _PATH)
    qwen2_5_encoder(sheet, part(source, "vision_config", QWEN2_5))
    return with_towers(read_text(source, tied=any_tied(source)), sheet)


def qwen2_5_encoder(sheet: Sheet, fields: Fields) -> None:
    """Write down the encoder of Qwen2.5-VL and of Qwen2.5-Omni."""
    encoder = encoder_of(fields, heads="num_heads", layers="depth")
    _patches(sheet, fields, encoder.hidden, bias=False)
    for index in range(encoder.layers):
        block = f"blocks.{index}"
        sheet.vector(encoder.hidden, count=2)
        encoder_attention(sheet, encoder, qkv=f"{block}.attn.qkv", output=f"{block}.attn.proj")
        mlp(
            sheet,
            f"{block}.mlp",
            hidden=encoder.hidden,
            intermediate=encoder.intermediate,
            gated=True,
            bias=True,
        )
    sheet.vector(encoder.hidden)
    merged = _merged(fields, encoder.hidden)
    _merger(sheet, ("merger.mlp.0", "merger.mlp.2"), merged, size_of(fields, "out_hidden_size"))


def read_qwen3_vl(source: Source) -> Body:
    """Qwen3-VL, dense or of experts. Raises `ConfigError`."""
    fields = part(source, "vision_config", _QWEN3)
    body = read_text(source, tied=root_tied(source, default=False))
    return with_towers(body, _qwen3_encoder(source, fields))


def read_qwen3_5_vl(source: Source) -> Body:
    """Qwen3.5, dense or of experts; its text part alone decides about the output head.

    Raises `ConfigError`.
    """
    fields = part(source, "vision_config", _QWEN3_5)
    return with_towers(read_text(source, tied=None), _qwen3_encoder(source, fields))


def qwen3_omni_encoder(source: Source, thinker: Source) -> Sheet:
    """The encoder of Qwen3-Omni: Qwen3-VL's, with positions for the patches of its image."""
    fields = part(thinker, "vision_config", _QWEN3)
    side = size_of(fields, "image_size") // size_of(fields, "patch_size", high=MAX_KERNEL)
    sized = fields.replaced({"num_position_embeddings": side**2})
    names = _Names(mergers="merger_list", inward="mlp.0", outward="mlp.2")
    return _qwen3_encoder(source, sized, names)


@dataclass(frozen=True, slots=True)
class _Names:
    """The engine's names for the mergers of Qwen3-VL's encoder."""

    mergers: str = "deepstack_merger_list"
    inward: str = "linear_fc1"
    outward: str = "linear_fc2"

    def linear(self, merger: str) -> tuple[str, str]:
        """The linear layers of the merger at this path."""
        return f"{merger}.{self.inward}", f"{merger}.{self.outward}"


_NAMES: Final = _Names()


def _qwen3_encoder(source: Source, fields: Fields, names: _Names = _NAMES) -> Sheet:
    """Layers named in `deepstack_visual_indexes` have a merger of their own, its norm after merging."""
    sheet = tower(source, _PATH)
    encoder = encoder_of(fields, heads="num_heads", layers="depth")
    hidden, merged = encoder.hidden, _merged(fields, encoder.hidden)
    _patches(sheet, fields, hidden, bias=True)
    sheet.tensor(size_of(fields, "num_position_embeddings"), hidden)
    for index in range(encoder.layers):
        _qwen3_block(sheet, encoder, f"blocks.{index}")
    out = size_of(fields, "out_hidden_size")
    layer_norms(sheet, hidden)
    _merger(sheet, names.linear("merger"), merged, out)
    for number, _ in enumerate(integers(fields, "deepstack_visual_indexes", most=MAX_LAYERS)):
        layer_norms(sheet, merged)
        _merger(sheet, names.linear(f"{names.mergers}.{number}"), merged, out)
    return sheet


def _qwen3_block(sheet: Sheet, encoder: Encoder, block: str) -> None:
    layer_norms(sheet, encoder.hidden, count=2)
    encoder_attention(sheet, encoder, qkv=f"{block}.attn.qkv", output=f"{block}.attn.proj")
    encoder_mlp(sheet, encoder, inward=f"{block}.mlp.linear_fc1", outward=f"{block}.mlp.linear_fc2")


def _patches(sheet: Sheet, fields: Fields, hidden: int, *, bias: bool) -> None:
    channels, frames, side = (
        size_of(fields, name, high=MAX_KERNEL)
        for name in ("in_channels", "temporal_patch_size", "patch_size")
    )
    sheet.tensor(hidden, channels, frames, side, side)
    if bias:
        sheet.vector(hidden)


def _merged(fields: Fields, hidden: int) -> int:
    """Elements of the patches that become one token."""
    return hidden * size_of(fields, "spatial_merge_size", high=MAX_KERNEL) ** 2


def _merger(sheet: Sheet, names: tuple[str, str], merged: int, out: int) -> None:
    sheet.column_parallel(names[0], merged, merged, bias=True)
    sheet.row_parallel(names[1], merged, out, bias=True)
