"""Does a model fit given KV bytes on one kind of device, and how much does it hold: the engine's own figures."""

from __future__ import annotations

from dataclasses import dataclass

from tonnage.models import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the engine runs on: `compute_capability` of an NVIDIA GPU such as (9, 0), None for CPU nodes.

    `name` and `memory_bytes` decide the engine's default batch sizes.
    """

    compute_capability: tuple[int, int] | None
    name: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The engine's options that decide its KV cache; None leaves the engine its default.

    `context_tokens` -1 asks for the longest that fits (`--max-model-len -1`).
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    decode_context_parallel: int = 1
    expert_parallel: bool = False
    dtype: str | None = None
    kv_dtype: str = "auto"
    kv_dtype_skip_layers: tuple[str, ...] = ()
    block_tokens: int | None = None
    context_tokens: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    prefix_caching: bool | None = None
    hybrid_manager: bool = True
    enforce_eager: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFit:
    """One KV group: layers that share a block table. `blocks_per_request` at the context length."""

    kind: str
    layers: int
    block_tokens: int
    page_bytes: int
    blocks_per_request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The answer. `supported` False: the engine or this table refuses, `reason` is a word, `message` says why.

    `fits` False with `supported` True: not enough KV bytes; `estimated_max_context` is then the engine's own
    suggestion. Numbers are of the smallest rank; `weights_bytes_by_stage` are bytes of one rank of each
    pipeline stage, None where the checkpoint's format is not known.
    """

    supported: bool
    fits: bool
    reason: str | None
    message: str | None
    context_tokens: int | None = None
    block_tokens: int | None = None
    kv_dtype: str | None = None
    attention_backends: tuple[str, ...] = ()
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    bytes_per_block: int | None = None
    num_blocks: int | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    groups: tuple[GroupFit, ...] = ()
    weights_bytes_by_stage: tuple[int, ...] | None = None
    estimated_max_context: int | None = None


def fit(
    shape: ModelShape, *, device: Device, options: EngineOptions, kv_bytes: int, engine_version: str = "0.32.0"
) -> Fit:
    """What an engine with these options makes of `kv_bytes` on each rank."""
    raise NotImplementedError
