"""What a model needs, read once from its files: the one description of a model that planning knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FullAttention:
    """A layer that stores a key and a value for every token (MHA, GQA and MQA differ only in `kv_heads`)."""

    kv_heads: int
    head_size: int
    head_size_v: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow:
    """As `FullAttention`, but a token older than `window_tokens` is forgotten."""

    kv_heads: int
    head_size: int
    head_size_v: int
    window_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: one vector of `latent_size` elements per token, key and value in one.

    `latent_size` is `kv_lora_rank + qk_rope_head_dim` of the model's config.
    """

    latent_size: int


CacheSpec = FullAttention | SlidingWindow | LatentAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRun:
    """`layers` consecutive layers with the same cache spec."""

    spec: CacheSpec
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors of a checkpoint as stored in its safetensors files.

    `bytes_by_dtype` holds (safetensors dtype name, bytes), sorted by name; `parameters` counts stored
    elements.
    """

    bytes_by_dtype: tuple[tuple[str, int], ...]
    parameters: int

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(stored_bytes for _, stored_bytes in self.bytes_by_dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What config.json alone tells.

    `dtype` is the torch name the config declares ("bfloat16", "float16", "float32"), None where it
    declares none; `max_context_tokens` is the model's own limit and `default_context_tokens` what the
    engine serves when asked for nothing (less for LongRoPE models). `head_elements` are the elements of
    key and value that one query head would store per token if heads shared nothing: the measure of what
    the architecture saves. `layers` lists runs of layers that keep a KV cache, in model order.
    `fixed_kv_dtype` says that the engine stores this architecture's KV cache in the model's dtype
    whatever it is told. `quantization` is the declared method of the weights ("fp8", "awq", ...) or None.
    """

    architecture: str
    dtype: str | None
    max_context_tokens: int
    default_context_tokens: int
    vocab_size: int
    hidden_size: int
    num_attention_heads: int
    head_elements: int
    layers: tuple[LayerRun, ...]
    fixed_kv_dtype: bool
    quantization: str | None
    tied_embeddings: bool

    @property
    def num_layers(self) -> int:
        """Layers that keep a KV cache."""
        return sum(run.layers for run in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """A model's shape and its weights: all that planning needs to know of it."""

    shape: ModelShape
    weights: Weights
