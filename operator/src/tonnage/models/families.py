"""All architectures that are understood, and what is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.family import ABSENT, ANY, Family
from tonnage.models.fields import Fields
from tonnage.models.tables.dense import DENSE
from tonnage.models.tables.hybrid import HYBRID
from tonnage.models.tables.mixture import MIXTURE
from tonnage.models.tables.multimodal import MULTIMODAL

FAMILIES: Final[Mapping[str, Family]] = {**DENSE, **MIXTURE, **HYBRID, **MULTIMODAL}

PLAIN: Final = Family()
"""What `assumeFullAttention` reads an unknown architecture as."""

NOT_PLANNED: Final[Mapping[str, str]] = {
    "is_encoder_decoder": "encoder-decoder models keep a second cache for the encoder",
    "use_bidirectional_attention": "bidirectional attention keeps no KV cache",
    "dual_chunk_attention_config": "dual chunk attention needs its own backend",
    "index_topk": "the sparse-attention indexer keeps a second cache",
    "num_kv_shared_layers": "layers that share a cache",
    "attention_chunk_size": "chunked local attention",
    "block_configs": "layers of different shapes",
    "compress_ratios": "compressed latent caches",
    "linear_num_value_heads": "linear-attention state",
    "target_layer_count": "draft models are not served on their own",
}
"""Keys whose presence with a true value means a cache this version does not plan; refused by name."""


def text_architecture(wrapper: Family, text: Fields, architecture: str) -> str:
    """The architecture that reads the text model of a wrapper. Raises `ConfigError` where none does."""
    model_type = text.optional_text("model_type")
    name = wrapper.texts.get(model_type or ABSENT, wrapper.texts.get(ANY))
    if name is None:
        known = ", ".join(sorted(set(wrapper.texts) - {ABSENT}))
        raise ConfigError(
            "UnsupportedAttention",
            f"config.json: {architecture} wraps a text model of model_type {model_type!r}; known: {known}",
        )
    return name


def with_text(wrapper: Family, text: Fields, architecture: str) -> Family:
    """A wrapper with what the family of its text model says of the text part; its own defaults win."""
    name = text_architecture(wrapper, text, architecture)
    inner = FAMILIES[name]
    return replace(
        wrapper,
        defaults={**inner.defaults, **wrapper.text_defaults.get(name, {}), **wrapper.defaults},
        plans=wrapper.plans | inner.plans,
        rope_scales_context=inner.rope_scales_context,
    )
