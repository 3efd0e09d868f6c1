"""What a model needs, read once from its files: the one description of a model that planning knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

from tonnage.models.errors import ConfigError
from tonnage.models.parameters import Parameter

_REVISION: Final = re.compile(r"(files-)?[0-9a-f]{7,64}", re.ASCII)


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
class ChunkedLocal:
    """As `FullAttention`, but tokens before the current chunk of `chunk_tokens` are forgotten."""

    kv_heads: int
    head_size: int
    head_size_v: int
    chunk_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: one vector of `latent_size` elements per token, key and value in one.

    `latent_size` is `kv_lora_rank + qk_rope_head_dim` of the model's config.
    """

    latent_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBytes:
    """A cache whose bytes do not follow the KV dtype: `bytes_per_state` for every `tokens_per_state` tokens.

    The indexer of DeepSeek sparse attention and the compressed caches of DeepSeek-V4. `window_tokens` 0
    remembers all tokens; `block_tokens` 0 takes the engine's block size; pages are padded to `alignment`
    bytes. The cache is whole on every rank.
    """

    role: str
    bytes_per_state: int
    tokens_per_state: int = 1
    window_tokens: int = 0
    block_tokens: int = 0
    alignment: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttention:
    """Keys and values of an encoder's output: a fixed number of tokens per request."""

    kv_heads: int
    head_size: int
    head_size_v: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentState:
    """State of a fixed size per request: Mamba, gated delta nets, short convolutions.

    `kind` is the engine's name of its kernels ("mamba1", "mamba2", "gdn_attention", "short_conv",
    "linear_attention"); `chunk_tokens` is the chunk in which its kernels scan, 0 where that does not matter.
    """

    kind: str
    tensors: tuple[Parameter, ...]
    chunk_tokens: int = 0


CacheSpec = (
    FullAttention
    | SlidingWindow
    | ChunkedLocal
    | LatentAttention
    | TokenBytes
    | CrossAttention
    | RecurrentState
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: the caches it keeps (none where it reads another layer's) and the tensors it holds."""

    caches: tuple[CacheSpec, ...]
    parameters: tuple[Parameter, ...] = ()
    shares_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRun:
    """`layers` consecutive layers alike."""

    layer: Layer
    layers: int


class Trait(StrEnum):
    """What the engine's choices depend on beside sizes."""

    SINKS = "sinks"
    SPARSE = "sparse"
    SOFTCAP = "softcap"
    BIDIRECTIONAL_IMAGES = "bidirectional-images"
    MULTIMODAL = "multimodal"
    ENCODER_ONLY = "encoder-only"
    FIXED_KV_DTYPE = "fixed-kv-dtype"
    ONE_STAGE = "one-stage"
    BLOCK_OUTERMOST = "block-outermost"
    UNEVEN_HEADS = "uneven-heads"
    DECLARED_PLAIN = "declared-plain"
    """A quantization is declared that names no method: the engine loads it as a plain checkpoint, but takes
    no `--quantization` for it (vllm/config/model.py `_verify_quantization`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Tensors outside the layers, by where a pipeline keeps them: the first stage, the last, every one.

    `embedding` is the token table; the last stage holds it too where `tied` says that it also makes the
    logits.
    """

    first: tuple[Parameter, ...] = ()
    last: tuple[Parameter, ...] = ()
    every: tuple[Parameter, ...] = ()
    embedding: tuple[Parameter, ...] = ()
    tied: bool = False


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
    engine serves when asked for nothing (less for LongRoPE models). `head_size` is the one size the engine
    picks its kernels by; `head_elements` are the elements of key and value that one query head would store
    per token if heads shared nothing: the measure of what the architecture saves. `layers` lists runs of
    layers in model order. `kv_dtype` is the KV dtype the checkpoint declares and "auto" follows, or None.
    `encoder_tokens` is the longest encoder output of one request. `quantization` is the declared method of
    the weights ("fp8", "awq", ...) or None; `weights_known` says that the tensors are known, which they are
    not where the checkpoint's format is not. `experts_per_token` is how many routed experts compute a token,
    0 where there are none or the config does not say.
    """

    architecture: str
    dtype: str | None
    max_context_tokens: int
    default_context_tokens: int
    vocab_size: int
    hidden_size: int
    num_attention_heads: int
    head_size: int
    head_elements: int
    layers: tuple[LayerRun, ...]
    outside: Outside = Outside()
    traits: frozenset[Trait] = frozenset()
    kv_dtype: str | None = None
    encoder_tokens: int = 0
    quantization: str | None
    tied_embeddings: bool
    weights_known: bool = True
    experts_per_token: int = 0

    @property
    def fixed_kv_dtype(self) -> bool:
        """Whether the engine stores the KV cache in the model's dtype whatever it is told."""
        return Trait.FIXED_KV_DTYPE in self.traits

    @property
    def num_layers(self) -> int:
        """Layers that keep a cache."""
        return sum(run.layers for run in self.layers if run.layer.caches)

    @property
    def mixing_layers(self) -> int:
        """Layers that mix tokens: those with a cache, and those that read another layer's."""
        return sum(run.layers for run in self.layers if run.layer.caches or run.layer.shares_cache)

    @property
    def cache_runs(self) -> Iterator[tuple[CacheSpec, int]]:
        """(spec, layers) of every cache, in model order."""
        for run in self.layers:
            for spec in run.layer.caches:
                yield spec, run.layers

    @property
    def latent(self) -> bool:
        """Whether the model uses latent attention (`ModelConfig.use_mla`)."""
        return any(isinstance(spec, LatentAttention) for spec, _ in self.cache_runs)

    @property
    def recurrent(self) -> bool:
        """Whether some layer keeps a state of fixed size."""
        return any(isinstance(spec, RecurrentState) for spec, _ in self.cache_runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """A model's shape and its weights: all that planning needs to know of it."""

    shape: ModelShape
    weights: Weights


def is_revision(text: str) -> bool:
    """Does the text have the form of a commit, or of an identity of files?"""
    return _REVISION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """A model as it was read at one time.

    `revision` identifies the files: a commit of the hub, or what was seen of a directory. `download_bytes` is
    what an engine downloads to serve it, 0 where the files are mounted. Raises `ConfigError`.
    """

    profile: ModelProfile
    revision: str
    download_bytes: int = 0

    def __post_init__(self) -> None:
        if not is_revision(self.revision):
            raise ConfigError(
                "RevisionInvalid", f"{self.revision[:80]!r} is neither a commit nor an identity of files"
            )
        if self.download_bytes < 0:
            raise ConfigError("RevisionInvalid", f"{self.download_bytes} bytes cannot be downloaded")


def runs_of(layers: Iterable[Layer]) -> tuple[LayerRun, ...]:
    """Consecutive equal layers as runs; equal layers become one object, so that what is worked out for one
    can be kept by its identity."""
    known: dict[Layer, Layer] = {}
    alike = (known.setdefault(layer, layer) for layer in layers)
    return tuple(LayerRun(layer=layer, layers=sum(1 for _ in run)) for layer, run in groupby(alike))
