"""The declared quantization of a checkpoint: how its weights are stored and which KV dtype it asks for."""

from tonnage.models.quantization.checkpoint import Quantization, read_quantization

__all__ = ["Quantization", "read_quantization"]
