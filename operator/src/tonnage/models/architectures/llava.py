"""LLaVA and its kin: an encoder by one of three designs, cut after the layer whose output is used, before a
text model of any family.

Read in vLLM 0.32.0 `model_executor/models/{llava,llava_next,llava_onevision,mistral3}.py`; defaults in
transformers 5.19.0 `models/{llava,llava_next,llava_onevision,mistral3}/configuration_*.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tonnage.models.architectures.siglip import (
    CLIP,
    PIXTRAL,
    SIGLIP,
    clip_encoder,
    pixtral_encoder,
    siglip_encoder,
)
from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    any_tied,
    integers,
    layers_of,
    part,
    read_any_text,
    root_tied,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import MAX_LAYERS, Body, Source
from tonnage.models.errors import ConfigError
from tonnage.models.fields import Fields
from tonnage.models.sheet import Sheet

_PATH: Final = "vision_tower."
_PROJECTOR: Final = "multi_modal_projector."
_DEFAULTS: Final = {"clip_vision_model": CLIP, "siglip_vision_model": SIGLIP, "pixtral": PIXTRAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vision:
    """An encoder, the number of its layers that are held, and the width of what they give."""

    fields: Fields
    kind: str
    layers: int
    width: int
    chosen_layers: int


def read_llava(source: Source) -> Body:
    """LLaVA 1.5 and Pixtral in its format. Raises `ConfigError`."""
    vision = _vision(source, default_kind="clip_vision_model", default_layer=-2)
    body = read_any_text(source, tied=any_tied(source))
    projector = tower(source, _PROJECTOR)
    _two_linear(projector, vision.width, body.hidden_size, bias=_bias(source, default=True))
    return with_towers(body, *_encoder(source, vision), projector)


def read_llava_next(source: Source) -> Body:
    """LLaVA-NeXT; outputs of several layers are laid side by side. Raises `ConfigError`."""
    vision = _vision(source, default_kind="clip_vision_model", default_layer=-2)
    body = read_any_text(source, tied=root_tied(source, default=False))
    projector = tower(source, _PROJECTOR)
    width = vision.width * vision.chosen_layers
    _two_linear(projector, width, body.hidden_size, bias=_bias(source, default=True))
    projector.vector(body.hidden_size)
    return with_towers(body, *_encoder(source, vision), projector)


def read_llava_onevision(source: Source) -> Body:
    """LLaVA-OneVision, whose projection is whole on every rank and never quantized. Raises `ConfigError`."""
    vision = _vision(source, default_kind="siglip_vision_model", default_layer=-1)
    body = read_any_text(source, tied=any_tied(source))
    projector = tower(source, _PROJECTOR, quantized=False)
    bias = _bias(source, default=True)
    projector.replicated("linear_1", vision.width, body.hidden_size, bias=bias)
    projector.replicated("linear_2", body.hidden_size, body.hidden_size, bias=bias)
    projector.vector(body.hidden_size)
    return with_towers(body, *_encoder(source, vision), projector)


def read_mistral3(source: Source) -> Body:
    """Mistral Small 3.1 and Ministral 3: patches are merged before the projection. Raises `ConfigError`."""
    vision = _vision(source, default_kind="pixtral", default_layer=-1)
    if vision.kind != "pixtral":
        vision.fields.fail("model_type", f"is {vision.kind!r}; the engine takes pixtral here")
    body = read_any_text(source, tied=root_tied(source, default=True))
    projector = tower(source, _PROJECTOR)
    root = source.root.replaced(defaults={"spatial_merge_size": 2})
    projector.vector(vision.width)
    merged = vision.width * size_of(root, "spatial_merge_size", high=MAX_KERNEL) ** 2
    projector.tensor(vision.width, merged)
    _two_linear(projector, vision.width, body.hidden_size, bias=_bias(source, default=False))
    return with_towers(body, *_encoder(source, vision), projector)


def _vision(source: Source, *, default_kind: str, default_layer: int) -> _Vision:
    if not source.root.optional_object("vision_config"):
        source.root.fail("vision_config", "is missing or empty; it describes the encoder")
    kind = part(source, "vision_config", {"model_type": default_kind}).optional_text("model_type")
    if kind not in _DEFAULTS:
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json vision_config: the engine knows no encoder of model_type {kind!r} in "
            f"{source.architecture}; known: {', '.join(sorted(_DEFAULTS))}",
        )
    fields = part(source, "vision_config", _DEFAULTS[kind])
    chosen = _chosen_layers(source, default_layer)
    return _Vision(
        fields=fields,
        kind=kind,
        layers=_held_layers(source, chosen, layers_of(fields)),
        width=size_of(fields, "hidden_size"),
        chosen_layers=len(chosen),
    )


def _chosen_layers(source: Source, default: int) -> tuple[int, ...]:
    """Layers whose outputs are used: one, or several in a list; from the end where negative."""
    root = source.root.replaced(defaults={"vision_feature_layer": default})
    if isinstance(root.raw("vision_feature_layer"), list):
        chosen = integers(root, "vision_feature_layer", most=MAX_LAYERS, low=-MAX_LAYERS, high=MAX_LAYERS)
        if not chosen:
            root.fail("vision_feature_layer", "names no layer")
        return chosen
    return (root.integer("vision_feature_layer", low=-MAX_LAYERS, high=MAX_LAYERS),)


def _held_layers(source: Source, chosen: tuple[int, ...], layers: int) -> int:
    """`get_layer_index`: layers up to the deepest one used."""
    deepest = max(index if index >= 0 else layers + index + 1 for index in chosen)
    if not 0 <= deepest <= layers:
        source.root.fail("vision_feature_layer", f"is not one of the encoder's {layers} layers")
    return deepest


def _encoder(source: Source, vision: _Vision) -> tuple[Sheet, ...]:
    if vision.kind == "clip_vision_model":
        return clip_encoder(source, vision.fields, path=f"{_PATH}vision_model.", layers=vision.layers)
    if vision.kind == "pixtral":
        return pixtral_encoder(source, vision.fields, path=_PATH, layers=vision.layers)
    return siglip_encoder(
        source, vision.fields, path=f"{_PATH}vision_model.", layers=vision.layers, post_norm=False
    )


def _bias(source: Source, *, default: bool) -> bool:
    name = "multimodal_projector_bias"
    return source.root.replaced(defaults={name: default}).flag(name)


def _two_linear(sheet: Sheet, width: int, hidden: int, *, bias: bool) -> None:
    sheet.column_parallel("linear_1", width, hidden, bias=bias)
    sheet.row_parallel("linear_2", hidden, hidden, bias=bias)
