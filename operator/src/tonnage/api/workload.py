"""The part of the spec that says what to serve, how much of it, and how much quality may be given up."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from tonnage.api.base import (
    ApiModel,
    Count,
    EngineName,
    Name,
    Quantity,
    ShortName,
    cel,
    only_with_mode,
    schema_extra,
)
from tonnage.planning.plan import Quality


class SecretKey(ApiModel):
    """A key of a Secret in the object's own namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Key inside the Secret.")


class Model(ApiModel):
    """The model to serve."""

    model_config = ConfigDict(
        json_schema_extra=schema_extra(
            cel(
                "!self.uri.split('/').exists(part, part == '..')",
                "uri must not contain '..': name the directory",
            )
        )
    )

    uri: Annotated[str, Field(max_length=512, pattern=r"^(pvc|hf)://[A-Za-z0-9][A-Za-z0-9._/-]*$")] = Field(
        description=(
            "Where the model is: pvc://CLAIM/PATH for a directory on a PersistentVolumeClaim, "
            "hf://ORG/NAME for the hub."
        )
    )
    revision: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        default="main", description="Branch, tag or commit of a hub model."
    )
    token_secret: SecretKey | None = Field(
        default=None, description="Secret with the token for a private hub model."
    )
    served_name: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="Name that clients use in requests; the last part of uri if absent."
    )
    assume_full_attention: bool = Field(
        default=False,
        description="Plan an architecture that Tonnage does not know as if all layers were full attention.",
    )

    @field_validator("uri")
    @classmethod
    def _stays_inside(cls, uri: str) -> str:
        if ".." in uri.split("/"):
            raise ValueError("uri must not contain '..'")
        return uri

    @property
    def claim(self) -> str:
        """The PersistentVolumeClaim of a pvc:// model."""
        return self.uri.removeprefix("pvc://").partition("/")[0]

    @property
    def path(self) -> str:
        """The directory of a pvc:// model inside its claim; empty for the claim's root."""
        return self.uri.removeprefix("pvc://").partition("/")[2].strip("/")


class Workload(ApiModel):
    """What one replica must hold."""

    context_length: Count | None = Field(
        default=None,
        description=(
            "Longest request served, prompt and output together, in tokens; one such request always fits. "
            "The model's own limit if absent."
        ),
    )
    concurrency: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=16,
        description="Requests in flight per replica that fit without preemption, each at typicalTokens.",
    )
    typical_tokens: Count | None = Field(
        default=None,
        description="Tokens that a typical request holds at its end; a quarter of contextLength if absent.",
    )


class EvictionMode(StrEnum):
    """How tokens may be dropped from a request's KV cache."""

    AUTO = "Auto"
    NONE = "None"
    STREAMING = "Streaming"


class Streaming(ApiModel):
    """Attention sinks plus a window of recent tokens."""

    sink_tokens: Count = Field(description="Tokens kept at the start of the request.")
    window_tokens: Count = Field(description="Most recent tokens kept.")


class Eviction(ApiModel):
    """KV eviction inside a request; lossy, so Auto uses it under quality Economy only."""

    model_config = ConfigDict(json_schema_extra=schema_extra(only_with_mode("streaming", "Streaming")))

    mode: EvictionMode = Field(default=EvictionMode.AUTO, description="Auto, None or Streaming.")
    streaming: Streaming | None = Field(default=None, description="Set if and only if mode is Streaming.")


class OffloadMode(StrEnum):
    """Whether evicted KV blocks move to slower memory."""

    AUTO = "Auto"
    NONE = "None"
    FIXED = "Fixed"


class FixedOffload(ApiModel):
    """Sizes of the slower tiers."""

    host_memory: Quantity | None = Field(default=None, description="Host memory per replica, such as 64Gi.")
    disk: Quantity | None = Field(default=None, description="Ephemeral disk per replica, such as 200Gi.")


class Offload(ApiModel):
    """Tiers below GPU memory for KV blocks that no running request needs."""

    model_config = ConfigDict(json_schema_extra=schema_extra(only_with_mode("fixed", "Fixed")))

    mode: OffloadMode = Field(default=OffloadMode.AUTO, description="Auto, None or Fixed.")
    fixed: FixedOffload | None = Field(default=None, description="Set if and only if mode is Fixed.")


class SharingMode(StrEnum):
    """Whether replicas share prefix KV."""

    NONE = "None"
    POOL = "Pool"


class Pool(ApiModel):
    """A KV pool shared by the replicas."""

    size: Quantity | None = Field(default=None, description="Size of the pool, such as 256Gi.")


class Sharing(ApiModel):
    """Sharing of prefix KV between replicas."""

    model_config = ConfigDict(json_schema_extra=schema_extra(only_with_mode("pool", "Pool")))

    mode: SharingMode = Field(default=SharingMode.NONE, description="None or Pool.")
    pool: Pool | None = Field(default=None, description="Set if and only if mode is Pool.")


class PrefixCaching(StrEnum):
    """Reuse of KV blocks between requests that start alike."""

    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Cache(ApiModel):
    """How the KV cache is stored, kept and shared."""

    dtype: EngineName = Field(
        default="Auto",
        description="Auto lets the planner choose; an engine dtype such as fp8 or bfloat16 pins it.",
    )
    prefix_caching: PrefixCaching = Field(
        default=PrefixCaching.AUTO, description="Auto, Enabled or Disabled."
    )
    eviction: Eviction = Field(default_factory=Eviction, description="KV eviction inside a request.")
    offload: Offload = Field(default_factory=Offload, description="Tiers for KV blocks not in use.")
    sharing: Sharing = Field(default_factory=Sharing, description="KV sharing between replicas.")


class Weights(ApiModel):
    """How the weights are stored."""

    quantization: EngineName = Field(
        default="Auto",
        description="Auto, None, or an engine quantization such as fp8 beyond what the checkpoint declares.",
    )


class Accelerator(StrEnum):
    """What the engine computes on."""

    GPU = "GPU"
    CPU = "CPU"


class Parallelism(ApiModel):
    """How one replica is spread over GPUs."""

    tensor: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Tensor parallel size."
    )
    pipeline: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Pipeline parallel size."
    )
    decode_context: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Decode context parallel size."
    )


class Hardware(ApiModel):
    """Where replicas may run; the planner chooses what is absent."""

    accelerator: Accelerator | None = Field(default=None, description="GPU or CPU.")
    products: Annotated[list[ShortName], Field(max_length=32)] = Field(
        default_factory=list,
        description="GPU products that may be used, such as H100-80GB-HBM3; all if empty.",
        json_schema_extra=schema_extra(x_kubernetes_list_type="set"),
    )
    parallelism: Parallelism = Field(default_factory=Parallelism, description="Pinned parallel sizes.")
    max_gpus_per_replica: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        alias="maxGPUsPerReplica",
        description="Most GPUs that one replica may take.",
    )


__all__ = [
    "Accelerator",
    "Cache",
    "Eviction",
    "EvictionMode",
    "Hardware",
    "Model",
    "Offload",
    "OffloadMode",
    "Parallelism",
    "PrefixCaching",
    "Quality",
    "SecretKey",
    "Sharing",
    "SharingMode",
    "Weights",
    "Workload",
]
