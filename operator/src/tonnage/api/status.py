"""What users read: status, conditions and the plan as an object."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tonnage.api.base import ATOMIC_LIST, ApiModel, Bytes64, Count64, ShortText
from tonnage.api.rules import ListMap
from tonnage.api.texts import MESSAGE_BYTES


class Phase(StrEnum):
    """One word for the printer column; conditions say the rest."""

    PENDING = "Pending"
    REFUSED = "Refused"
    STARTING = "Starting"
    VERIFYING = "Verifying"
    READY = "Ready"
    UPDATING = "Updating"
    DEGRADED = "Degraded"


class ConditionType(StrEnum):
    """The conditions of an LLMDeployment."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    MODEL_RESOLVED = "ModelResolved"
    PLANNED = "Planned"
    CAPACITY_VERIFIED = "CapacityVerified"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    SCALING_ACTIVE = "ScalingActive"
    DEGRADED = "Degraded"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One thing that is so, is not, or is not known."""

    type: Annotated[str, Field(max_length=64)] = Field(
        description="What it speaks of, such as Ready or Planned."
    )
    status: ConditionStatus = Field(description="Whether it is so.")
    reason: Annotated[str, Field(max_length=128)] = Field(description="Why it is so, one word for programs.")
    message: Annotated[str, Field(max_length=MESSAGE_BYTES)] = Field(
        default="", description="What is so, for people: with the numbers, and what to do."
    )
    observed_generation: int = Field(
        default=0,
        description="metadata.generation that the condition speaks of.",
    )
    last_transition_time: str = Field(
        description="When status last became another one.",
        json_schema_extra={"format": "date-time"},
    )


class PlanInputs(ApiModel):
    """The workload with defaults filled in."""

    context_length: int = Field(description="Tokens of the longest request.")
    concurrency: int = Field(description="Requests in flight per replica.")
    typical_tokens: int = Field(description="Tokens of a typical request.")


class Placement(ApiModel):
    """Where one replica runs."""

    pool: ShortText = Field(description="Pool of nodes that are alike.")
    product: ShortText = Field(description="Accelerator product; CPU on CPU nodes.")
    gpus_per_replica: int = Field(alias="gpusPerReplica", description="GPUs of one replica.")
    tensor_parallel: int = Field(description="Tensor parallel size.")
    pipeline_parallel: int | None = Field(default=None, description="Pipeline parallel size, on GPUs.")
    nodes_per_replica: int | None = Field(default=None, description="Nodes of one replica, on GPUs.")
    vendor: ShortText | None = Field(default=None, description="Vendor of the GPUs.")
    access: ShortText | None = Field(
        default=None,
        description="How pods ask for GPUs: Resource, an extended resource, or Claim, a ResourceClaim.",
    )
    resource: ShortText | None = Field(
        default=None, description="The extended resource that pods request, or the device class they claim."
    )
    sharing: ShortText | None = Field(
        default=None, description="Whom a GPU is shared with: None, MIG, MPS or TimeSlicing."
    )
    device_bytes: Bytes64 | None = Field(
        default=None, description="Memory of one GPU, or of the part of it that a pod gets."
    )


class PlanWeights(ApiModel):
    """The weights as loaded."""

    dtype: ShortText = Field(description="Data type or quantization.")
    bytes_per_rank: Bytes64 = Field(description="Bytes of weights on each rank.")
    quantization: ShortText | None = Field(
        default=None, description="How the engine quantizes weights that it loads; absent: as shipped."
    )


class PlanMemory(ApiModel):
    """Bytes of one rank by purpose."""

    total: Bytes64 = Field(description="Sum of all purposes.")
    context: Bytes64 = Field(description="Context of the accelerator's driver; 0 on CPUs.")
    non_torch: Bytes64 = Field(description="Engine processes, libraries, communication buffers.")
    weights: Bytes64 = Field(description="Weights as loaded.")
    activation: Bytes64 = Field(description="Peak of activations of one step.")
    graphs: Bytes64 = Field(description="Captured CUDA graphs; 0 on CPUs.")
    burst_margin: Bytes64 = Field(description="Kept free for allocations that come in bursts.")
    kv: Bytes64 = Field(description="KV cache.")


class PlanKv(ApiModel):
    """The KV cache that the engine must report."""

    dtype: ShortText = Field(description="Data type of the KV cache; auto is the model's own.")
    block_size: int = Field(description="Tokens per KV block.")
    blocks: Count64 = Field(description="KV blocks.")
    tokens: Count64 = Field(description="Tokens that the KV cache holds, as the engine counts them.")
    bytes_per_block: Bytes64 = Field(description="Bytes per KV block.")
    concurrency_at_context: ShortText = Field(description="Requests of contextLength that fit.")
    concurrency_at_typical: ShortText = Field(description="Requests of typicalTokens that fit.")
    scales: ShortText | None = Field(
        default=None,
        description="Scales of an fp8 KV cache: those of the checkpoint, or 1.0 where it has none.",
    )
    saved_by_architecture: ShortText = Field(
        default="", description="What the model's attention saves against multi-head attention."
    )


class PlanEngine(ApiModel):
    """How the engine is started on GPUs."""

    graph_mode: ShortText = Field(description="Mode of CUDA graphs; NONE without them.")
    graphs: int = Field(description="Batch sizes for which graphs are captured.")
    largest_graph: int = Field(description="The largest of them; 0 without graphs.")
    memory_utilization: ShortText = Field(
        description="Share of a GPU that must be free when the engine starts."
    )
    attention_backend: ShortText | None = Field(
        default=None, description="Attention kernels that the engine is told to use."
    )


class PlanAlternative(ApiModel):
    """A candidate that lost."""

    what: ShortText = Field(description="The candidate.")
    why: ShortText = Field(description="Why it lost.")


class PlanStatus(ApiModel):
    """The plan: what one replica is given and must report."""

    hash: ShortText = Field(description="Identity of the plan; its ConfigMap is NAME-plan-HASH.")
    engine_version: ShortText = Field(description="vLLM version that the plan is for.")
    inputs: PlanInputs = Field(description="Workload with defaults filled in.")
    placement: Placement = Field(description="Where one replica runs.")
    weights: PlanWeights = Field(description="Weights as loaded.")
    memory_bytes: PlanMemory = Field(description="Bytes of one rank by purpose.")
    kv: PlanKv = Field(description="KV cache.")
    engine: PlanEngine | None = Field(default=None, description="How the engine is started on GPUs.")
    quality: ShortText = Field(description="Rung of the quality ladder.")
    reason: Annotated[str, Field(max_length=512)] = Field(description="The choice in one sentence.")
    alternatives: Annotated[list[PlanAlternative], Field(max_length=5)] = Field(
        default_factory=list,
        description="Candidates that lost, and why.",
        json_schema_extra=ATOMIC_LIST,
    )


class Observed(ApiModel):
    """What the engines report."""

    blocks: Count64 = Field(description="KV blocks.")
    tokens: Count64 = Field(description="KV tokens.")
    concurrency: ShortText = Field(description="Requests of contextLength that fit at once.")
    engine_version: ShortText = Field(default="", description="vLLM version that answers.")
    start_seconds: ShortText = Field(default="", description="Seconds that the last start took.")
    pods: ShortText = Field(description="Pods whose engine holds what was planned, of all.")


class Status(ApiModel):
    """What Tonnage decided, and what it sees; at most 16 KiB."""

    observed_generation: int = Field(default=0, description="Generation last acted on.")
    phase: Phase = Field(default=Phase.PENDING, description="The state in one word; conditions say the rest.")
    ready_summary: ShortText = Field(default="", description="Ready replicas of wanted ones, such as 2/2.")
    gpu_summary: ShortText = Field(default="", description="Accelerators of one replica, such as 1x H100.")
    kv_used_summary: ShortText = Field(default="", description="Use of the KV cache, in steps of 10 %.")
    replicas: int = Field(default=0, description="Replicas that exist, ready or not.")
    desired_replicas: int = Field(default=0, description="Replicas that are wanted.")
    selector: Annotated[str, Field(max_length=512)] = Field(
        default="", description="Label selector of the worker pods, for autoscalers."
    )
    conditions: Annotated[list[Condition], Field(max_length=16), ListMap(("type",))] = Field(
        default_factory=list,
        description=(
            "Ready is the summary; Accepted, ModelResolved, Planned, CapacityVerified, Available, "
            "Progressing, ScalingActive and Degraded say the rest."
        ),
    )
    plan: PlanStatus | None = Field(default=None, description="The plan in force.")
    observed: Observed | None = Field(default=None, description="What the engines of the plan report.")
