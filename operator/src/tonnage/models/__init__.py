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
    SlidingWindow,
    TokenBytes,
    Trait,
    Weights,
    runs_of,
)
from tonnage.models.safetensors import files_of_index, header_length, read_header, sum_weights
from tonnage.models.wire import MAX_WIRE_BYTES, decode_wire, encode_wire, from_wire, to_wire

__all__ = [
    "ELEMENT_BYTES",
    "FAMILIES",
    "MAX_WIRE_BYTES",
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
    "SlidingWindow",
    "Split",
    "TokenBytes",
    "Trait",
    "Weights",
    "decode_wire",
    "encode_wire",
    "files_of_index",
    "from_wire",
    "header_length",
    "parse_config",
    "parse_json",
    "read_header",
    "runs_of",
    "sum_weights",
    "to_wire",
]
