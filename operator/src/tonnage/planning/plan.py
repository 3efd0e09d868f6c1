"""What planning takes and gives: plain frozen values, the same in a test, on a laptop and in the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Quality(StrEnum):
    """How much quality may be given up; each rung includes the ones before it."""

    LOSSLESS = "Lossless"
    NEAR_LOSSLESS = "NearLossless"
    ECONOMY = "Economy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one replica must hold.

    `context_length` and `typical_tokens` count prompt + output tokens of one request; None means the default
    (the model's own limit; a quarter of the context length). `concurrency` is requests in flight without
    preemption. `kv_dtype` None lets the planner choose; a name pins it. `prefix_caching` None lets it choose.
    """

    context_length: int | None = None
    concurrency: int = 16
    typical_tokens: int | None = None
    quality: Quality = Quality.NEAR_LOSSLESS
    kv_dtype: str | None = None
    prefix_caching: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBytes:
    """Bytes of one rank by purpose; on CPU nodes `context` and `graphs` are 0."""

    context: int
    non_torch: int
    weights: int
    activation: int
    graphs: int
    burst_margin: int
    kv: int

    @property
    def total(self) -> int:
        """Sum of all purposes, in bytes."""
        return (
            self.context
            + self.non_torch
            + self.weights
            + self.activation
            + self.graphs
            + self.burst_margin
            + self.kv
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A candidate that was not chosen, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One replica, exactly: placement, bytes, and the KV cache the engine must report.

    `memory.kv` is what the engine gets as `--kv-cache-memory-bytes`, `memory.total` what its processes need;
    `request_bytes` is what the pod requests of its node: that, and /dev/shm (`shared_memory_bytes`).
    `engine_rules` is the release whose rules were used: older than `engine_version` where that is newer
    than any known. `kv_dtype` and `attention_backend` are passed to the engine, the backend only where it
    is not None.
    """

    engine_version: str
    engine_rules: str
    pool: str
    product: str
    gpus_per_replica: int
    tensor_parallel: int
    context_length: int
    concurrency: int
    typical_tokens: int
    quality: Quality
    weights_dtype: str
    memory: MemoryBytes
    shared_memory_bytes: int
    request_bytes: int
    kv_dtype: str
    attention_backend: str | None
    block_size: int
    blocks: int
    tokens: int
    bytes_per_block: int
    concurrency_at_context: float
    concurrency_at_typical: float
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_caching: bool
    saved_by_architecture: str
    reason: str
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why there is no plan: `reason` for programs (CamelCase), `message` for people, `numbers` behind it."""

    reason: str
    message: str
    numbers: Mapping[str, int | str] = field(default_factory=dict)
