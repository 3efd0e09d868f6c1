"""Gemma's multimodal models: PaliGemma, Gemma 3 and Gemma 4.

All tokens of an image see each other, so that one must fit in one batch
(vllm/platforms/cuda.py 0.32 forces `disable_chunked_mm_input`). Read in vLLM 0.32.0
`model_executor/models/{paligemma,gemma3_mm,gemma4_mm}.py` and
`transformers_utils/model_arch_config_convertor.py` `is_mm_prefix_lm`; Gemma 4's encoders in transformers
5.19.0 `models/gemma4/{modeling,configuration}_gemma4.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tonnage.models.architectures.siglip import SIGLIP, siglip_encoder
from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    encoder_of,
    integers,
    layers_of,
    part,
    patches_of,
    quant_method,
    read_text,
    root_tied,
    size_of,
    tower,
    whole_tiles,
    with_towers,
)
from tonnage.models.body import MAX_CONTEXT, MAX_HEAD_SIZE, MAX_HEADS, Body, Source
from tonnage.models.fields import Fields
from tonnage.models.profile import Trait
from tonnage.models.sheet import Sheet

_PREFIX_LM: Final = frozenset({Trait.BIDIRECTIONAL_IMAGES})
_SIGLIP_PATH: Final = "vision_tower.vision_model."
_PROJECTOR: Final = "multi_modal_projector."

_PALIGEMMA: Final = {
    **SIGLIP,
    "hidden_size": 1152,
    "intermediate_size": 4096,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
_GEMMA4_VISION: Final = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "patch_size": 16,
    "position_embedding_size": 10240,
}
_GEMMA4_AUDIO: Final = {
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "subsampling_conv_channels": [128, 32],
    "conv_kernel_size": 5,
    "output_proj_dims": 1536,
}
_SMALL_MODEL_METHODS: Final = frozenset({"bitsandbytes", "torchao", "compressed-tensors"})
_VIDEO_TOKENS: Final = 32 * (70 + 2 + 6)
"""Frames of the longest video times soft tokens, two marks and a time stamp (`_VIDEO_MAX_FRAMES`,
`_VIDEO_MAX_SOFT_TOKENS`)."""


def read_gemma3_vision(source: Source) -> Body:
    """Gemma 3 with SigLIP. Raises `ConfigError`."""
    fields = part(source, "vision_config", SIGLIP)
    projector = tower(source, _PROJECTOR)
    body = read_text(source, tied=root_tied(source, default=True))
    projector.tensor(size_of(fields, "hidden_size"), body.hidden_size)
    projector.vector(size_of(fields, "hidden_size"))
    root = source.root.replaced(defaults={"mm_tokens_per_image": 256})
    return replace(
        with_towers(body, *siglip_encoder(source, fields, path=_SIGLIP_PATH), projector, traits=_PREFIX_LM),
        encoder_tokens=size_of(root, "mm_tokens_per_image", high=MAX_CONTEXT),
    )


def read_paligemma(source: Source) -> Body:
    """PaliGemma, on Gemma or Gemma 2. Raises `ConfigError`."""
    stated = source.root.optional_object("vision_config")
    fields = part(source, "vision_config", SIGLIP if stated else _PALIGEMMA)
    root = source.root.replaced(defaults={"projection_dim": 2048})
    projector = tower(source, _PROJECTOR)
    projector.tensor(size_of(root, "projection_dim"), size_of(fields, "hidden_size"))
    projector.vector(size_of(root, "projection_dim"))
    body = read_text(source, tied=root_tied(source, default=True))
    return replace(
        with_towers(body, *siglip_encoder(source, fields, path=_SIGLIP_PATH), projector, traits=_PREFIX_LM),
        encoder_tokens=patches_of(fields),
    )


def read_gemma4_multimodal(source: Source) -> Body:
    """Gemma 4 with its encoders, which every rank holds whole; larger models have no audio encoder.

    Only some of them let the tokens of an image see each other. Raises `ConfigError`.
    """
    vision = part(source, "vision_config", _GEMMA4_VISION)
    quantized = _takes_scheme(source, vision)
    body = read_text(source, tied=root_tied(source, default=True))
    towers = [_gemma4_vision(source, vision, body.hidden_size, quantized=quantized)]
    if source.root.optional_object("audio_config") is not None:
        towers.append(_gemma4_audio(source, body.hidden_size, quantized=quantized))
    prefix_lm = source.fields.raw("use_bidirectional_attention") == "vision"
    made = with_towers(body, *towers, traits=_PREFIX_LM if prefix_lm else frozenset())
    return replace(made, encoder_tokens=_largest_item(vision)) if prefix_lm else made


def _takes_scheme(source: Source, vision: Fields) -> bool:
    return quant_method(source) in _SMALL_MODEL_METHODS or whole_tiles(encoder_of(vision))


def _largest_item(vision: Fields) -> int:
    """`Gemma4ProcessingInfo.get_mm_max_tokens_per_item`; the engine finds none where the image's is unstated.

    Audio (750 tokens, as its processor says) is less than a video.
    """
    image = vision.optional_integer("default_output_length", low=1, high=MAX_CONTEXT)
    return 0 if image is None else max(image, _VIDEO_TOKENS)


def _gemma4_vision(source: Source, fields: Fields, text_hidden: int, *, quantized: bool) -> Sheet:
    encoder = encoder_of(fields)
    head_size = size_of(fields, "head_dim", high=MAX_HEAD_SIZE)
    keys = size_of(fields, "num_key_value_heads", high=MAX_HEADS) * head_size
    queries = encoder.heads * head_size
    sheet = tower(source, "", quantized=quantized)
    side = size_of(fields, "patch_size", high=MAX_KERNEL)
    sheet.tensor(2, size_of(fields, "position_embedding_size"), encoder.hidden)
    sheet.replicated("vision_tower.patch_embedder.input_proj", 3 * side * side, encoder.hidden)
    for index in range(encoder.layers):
        layer = f"vision_tower.encoder.layers.{index}"
        sheet.replicated(f"{layer}.self_attn.q_proj.linear", encoder.hidden, queries)
        sheet.replicated(f"{layer}.self_attn.k_proj.linear", encoder.hidden, keys)
        sheet.replicated(f"{layer}.self_attn.v_proj.linear", encoder.hidden, keys)
        sheet.replicated(f"{layer}.self_attn.o_proj.linear", queries, encoder.hidden)
        sheet.vector(head_size, count=2)
        sheet.replicated(f"{layer}.mlp.gate_proj.linear", encoder.hidden, encoder.intermediate)
        sheet.replicated(f"{layer}.mlp.up_proj.linear", encoder.hidden, encoder.intermediate)
        sheet.replicated(f"{layer}.mlp.down_proj.linear", encoder.intermediate, encoder.hidden)
        sheet.vector(encoder.hidden, count=4)
    width = fields.optional_integer("output_proj_dims", low=0, high=2**20) or encoder.hidden
    sheet.replicated("embed_vision.embedding_projection", width, text_hidden)
    return sheet


def _gemma4_audio(source: Source, text_hidden: int, *, quantized: bool) -> Sheet:
    fields = part(source, "audio_config", _GEMMA4_AUDIO)
    hidden = size_of(fields, "hidden_size")
    sheet = tower(source, "", quantized=quantized)
    _subsampling(sheet, fields, hidden)
    head_size = hidden // size_of(fields, "num_attention_heads", high=MAX_HEADS)
    kernel = size_of(fields, "conv_kernel_size", high=MAX_KERNEL)
    for index in range(layers_of(fields)):
        _conformer(sheet, f"audio_tower.layers.{index}", hidden, fields, head_size=head_size, kernel=kernel)
    width = size_of(fields, "output_proj_dims")
    sheet.replicated("audio_tower.output_proj", hidden, width, bias=True)
    sheet.replicated("embed_audio.embedding_projection", width, text_hidden)
    return sheet


def _subsampling(sheet: Sheet, fields: Fields, hidden: int) -> None:
    """Two convolutions that halve time and frequency each."""
    channels = integers(fields, "subsampling_conv_channels", most=2, low=4)
    if len(channels) != 2:
        fields.fail("subsampling_conv_channels", "does not name the channels of two convolutions")
    for before, after in ((1, channels[0]), channels):
        sheet.tensor(after, before, 3, 3)
        sheet.vector(after)
    path = "audio_tower.subsample_conv_projection.input_proj_linear"
    sheet.replicated(path, channels[0] // 4 * channels[1], hidden)


def _conformer(sheet: Sheet, layer: str, hidden: int, fields: Fields, *, head_size: int, kernel: int) -> None:
    """Attention and a convolution between two halves of a feed-forward network."""
    queries = size_of(fields, "num_attention_heads", high=MAX_HEADS) * head_size
    for network in ("feed_forward1", "feed_forward2"):
        sheet.replicated(f"{layer}.{network}.ffw_layer_1.linear", hidden, 4 * hidden)
        sheet.replicated(f"{layer}.{network}.ffw_layer_2.linear", 4 * hidden, hidden)
        sheet.vector(hidden, count=2)
    for name in ("q_proj.linear", "k_proj.linear", "v_proj.linear", "relative_k_proj"):
        sheet.replicated(f"{layer}.self_attn.{name}", hidden, queries)
    sheet.replicated(f"{layer}.self_attn.post.linear", hidden, hidden)
    sheet.vector(head_size)
    sheet.replicated(f"{layer}.lconv1d.linear_start.linear", hidden, 2 * hidden)
    sheet.replicated(f"{layer}.lconv1d.linear_end.linear", hidden, hidden)
    sheet.tensor(hidden, 1, kernel)
    sheet.vector(hidden, count=2)
    sheet.vector(hidden, count=3)
