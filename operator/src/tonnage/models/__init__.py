"""What a model needs: config.json and tensor sizes -> `ModelProfile`."""

from tonnage.models.config import parse_config
from tonnage.models.errors import ConfigError
from tonnage.models.families import FAMILIES
from tonnage.models.fields import parse_json
from tonnage.models.parameters import ELEMENT_BYTES, MODEL, ROUTER, Dimension, Parameter, Part, Split
from tonnage.models.profile import (
    CacheSpec,
    ChunkedLocal,
    CrossAttention,
    FullAttention,
    LatentAttention,
    Layer,
    LayerRun,
    ModelProfile,
    ModelShape,
    Outside,
    RecurrentState,
    ResolvedModel,
    SlidingWindow,
    TokenBytes,
    Trait,
    Weights,
    is_revision,
    runs_of,
)

__all__ = [
    "ELEMENT_BYTES",
    "FAMILIES",
    "MODEL",
    "ROUTER",
    "CacheSpec",
    "ChunkedLocal",
    "ConfigError",
    "CrossAttention",
    "Dimension",
    "FullAttention",
    "LatentAttention",
    "Layer",
    "LayerRun",
    "ModelProfile",
    "ModelShape",
    "Outside",
    "Parameter",
    "Part",
    "RecurrentState",
    "ResolvedModel",
    "SlidingWindow",
    "Split",
    "TokenBytes",
    "Trait",
    "Weights",
    "is_revision",
    "parse_config",
    "parse_json",
    "runs_of",
]
