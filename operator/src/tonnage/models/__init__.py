"""What a model needs: config.json and tensor sizes -> `ModelProfile`."""

from tonnage.models.config import parse_config
from tonnage.models.errors import ConfigError
from tonnage.models.families import FAMILIES
from tonnage.models.fields import parse_json
from tonnage.models.profile import (
    CacheSpec,
    FullAttention,
    LatentAttention,
    LayerRun,
    ModelProfile,
    ModelShape,
    SlidingWindow,
    Weights,
)
from tonnage.models.safetensors import files_of_index, header_length, read_header, sum_weights
from tonnage.models.wire import MAX_WIRE_BYTES, decode_wire, encode_wire, from_wire, to_wire

__all__ = [
    "FAMILIES",
    "MAX_WIRE_BYTES",
    "CacheSpec",
    "ConfigError",
    "FullAttention",
    "LatentAttention",
    "LayerRun",
    "ModelProfile",
    "ModelShape",
    "SlidingWindow",
    "Weights",
    "decode_wire",
    "encode_wire",
    "files_of_index",
    "from_wire",
    "header_length",
    "parse_config",
    "parse_json",
    "read_header",
    "sum_weights",
    "to_wire",
]
