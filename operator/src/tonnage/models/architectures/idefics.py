"""Idefics 3 and SmolVLM: SigLIP before Llama. The engine runs them on one stage only.

Read in vLLM 0.32.0 `model_executor/models/{idefics3,smolvlm,idefics2_vision_model}.py`; defaults in
transformers 5.19.0 `models/idefics3/configuration_idefics3.py`.
"""

from __future__ import annotations

from typing import Final

from tonnage.models.architectures.siglip import siglip_encoder
from tonnage.models.architectures.wrapped import (
    MAX_KERNEL,
    part,
    read_text,
    root_tied,
    size_of,
    tower,
    with_towers,
)
from tonnage.models.body import Body, Source
from tonnage.models.profile import Trait

_VISION: Final = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}


def read_idefics3(source: Source) -> Body:
    """Idefics 3 and SmolVLM. Raises `ConfigError`."""
    fields = part(source, "vision_config", _VISION)
    body = read_text(source, tied=_tied(source))
    connector = tower(source, "model.connector.")
    root = source.root.replaced(defaults={"scale_factor": 2})
    merged = size_of(fields, "hidden_size") * size_of(root, "scale_factor", high=MAX_KERNEL) ** 2
    connector.replicated("modality_projection.proj", merged, body.hidden_size)
    encoder = siglip_encoder(source, fields, path="model.vision_model.", any_size=True)
    return with_towers(body, *encoder, connector, traits=frozenset({Trait.ONE_STAGE}))


def _tied(source: Source) -> bool:
    """The whole config's word reaches a text part that names its architecture; others keep their own
    (vllm/config/vllm.py 0.32 `with_hf_config` changes a copy of these)."""
    if source.fields.optional_texts("architectures", max_items=16):
        return root_tied(source, default=False)
    return source.fields.flag("tie_word_embeddings")
