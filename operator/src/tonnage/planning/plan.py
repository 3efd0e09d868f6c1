"""What planning takes and gives: plain frozen values, the same in a test, on a laptop and in the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tonnage.gpus.inventory import Access, Sharing, Vendor


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
    """Bytes of one rank by purpose; on CPU nodes `context` and `graphs` are 0.

    `burst_margin` is for what the engine takes beyond what it measured at its start.
    """

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
class GpuPlan:
    """What a plan on accelerators has beside the rest: how pods ask for devices, how the engine is started.

    `vendor` to `node_labels`, and `selectors`, are the pool's (see `tonnage.gpus.inventory.Pool`).
    `device_bytes` is the total of one device that was planned with. A replica is `nodes_per_replica` pods
    of `devices_per_pod` devices each; their product is tensor times `pipeline_parallel` size.
    `quantization` is the engine's flag, "" where weights stay as shipped. `kv_scales` says where the scales
    of an fp8 KV cache come from: "checkpoint", "1.0", or "" where there are none. `graph_mode` and
    `captured_sizes` are CUDA graphs, "NONE" and none where `enforce_eager`. `memory_utilization` is only
    what the engine's check at its start reads: the share of the device that must be free then.
    `offload_bytes` are of the pod's main memory.
    """

    vendor: Vendor
    access: Access
    resource: str
    sharing: Sharing
    clients: int
    node_labels: Mapping[str, str]
    device_bytes: int
    compute_capability: tuple[int, int] | None
    devices_per_pod: int
    nodes_per_replica: int
    pipeline_parallel: int
    quantization: str
    kv_scales: str
    graph_mode: str
    captured_sizes: tuple[int, ...]
    enforce_eager: bool
    memory_utilization: str
    offload_bytes: int = 0
    selectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One replica, exactly: placement, bytes, and the KV cache the engine must report.

    `memory.kv` is what the engine gets as `--kv-cache-memory-bytes`, `memory.total` what its processes need;
    `request_bytes` is what the pod requests of its node: that, and /dev/shm (`shared_memory_bytes`).
    `engine_rules` is the release whose rules were used: older than `engine_version` where that is newer
    than any known. `kv_dtype` and `attention_backend` are passed to the engine, the backend only where it
    is not None. On accelerators `gpu` is there, `memory` is that of one device, `request_bytes` the pod's
    main memory, and `kv_dtype` the name that the engine makes of "auto".
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
    gpu: GpuPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why there is no plan: `reason` for programs (CamelCase), `message` for people, `numbers` behind it."""

    reason: str
    message: str
    numbers: Mapping[str, int | str] = field(default_factory=dict)
