"""The part of the spec that says what to serve, how much of it, and how much quality may be given up."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tonnage.api.base import ApiModel, Count, EngineName, Name, Quantity
from tonnage.api.rules import Form, ListSet, Rule, only_with_mode
from tonnage.planning.plan import Quality

# a directory is named part by part: none is '.', '..' or empty
_DIRECTORY = r"(/\.?[A-Za-z0-9_-][A-Za-z0-9._-]*)*"
_HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_URI = rf"^(pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?{_DIRECTORY}/?|hf://{_HUB_NAME}/{_HUB_NAME})$"


class SecretKey(ApiModel):
    """A key of a Secret in the object's own namespace."""

    atomic: ClassVar[bool] = True

    name: Name = Field(description="Name of the Secret.")
    key: Annotated[
        str,
        Field(max_length=253),
        Form(r"^[-._a-zA-Z0-9]+$", "write a key of the Secret: letters, digits, '-', '_' and '.'"),
    ] = Field(description="Key inside the Secret.")


class Model(ApiModel):
    """The model to serve."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.uri.startsWith('hf://') || !has(self.tokenSecret)",
            "tokenSecret is for hf:// models: remove it, a PersistentVolumeClaim needs no token",
            lambda model: model.hub or model.token_secret is None,
        ),
        Rule(
            "self.uri.startsWith('hf://') || self.revision == 'main'",
            "revision is for hf:// models: remove it, and name the directory that holds the revision in uri",
            lambda model: model.hub or model.revision == "main",
        ),
    )

    uri: Annotated[
        str,
        Field(max_length=512),
        Form(
            _URI,
            "write pvc://CLAIM/DIRECTORY for a model on a PersistentVolumeClaim (no '.' or '..' parts), or "
            "hf://ORG/NAME for one on the hub",
        ),
    ] = Field(
        description=(
            "Where the model is: pvc://CLAIM/DIRECTORY for a directory on a PersistentVolumeClaim of the "
            "same namespace, hf://ORG/NAME for the Hugging Face hub."
        )
    )
    revision: Annotated[
        str,
        Field(max_length=128),
        Form(
            r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
            "write a branch, a tag or a commit, such as main or 5f0b02c75b57c5855da9ae460ce51323ea669d8a",
        ),
    ] = Field(
        default="main",
        description="Branch, tag or commit of an hf:// model. A commit keeps the model from changing.",
    )
    token_secret: SecretKey | None = Field(
        default=None,
        description="Key of a Secret that holds the token for a private or gated hf:// model.",
    )
    served_name: (
        Annotated[
            str,
            Field(max_length=128),
            Form(
                r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$",
                "write the name that clients send: letters, digits and . _ : / @ + -, beginning with a "
                "letter or digit",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Name of the model in requests and answers; the last part of uri if absent.",
    )
    assume_full_attention: bool = Field(
        default=False,
        description=(
            "Plan an architecture that Tonnage does not know as if every layer were full attention, on CPU "
            "nodes alone: how GPUs share its weights is not known. The engine's own figures are still "
            "verified."
        ),
    )

    @property
    def hub(self) -> bool:
        """Whether the model is on the hub."""
        return self.uri.startswith("hf://")

    @property
    def hub_name(self) -> str:
        """ORG/NAME of an hf:// model; empty for any other."""
        return self.uri.removeprefix("hf://") if self.hub else ""

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

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.contextLength) || !has(self.typicalTokens) || "
            "self.typicalTokens <= self.contextLength",
            "typicalTokens must not be above contextLength, the longest request: lower it or raise "
            "contextLength",
            lambda w: None in (w.context_length, w.typical_tokens) or w.typical_tokens <= w.context_length,
        ),
    )

    context_length: Count | None = Field(
        default=None,
        description=(
            "Longest request served, prompt and output together, in tokens; one such request always fits. "
            "The model's own limit if absent."
        ),
    )
    concurrency: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=16,
        description=(
            "Requests in flight per replica that must fit without preemption, each at typicalTokens."
        ),
    )
    typical_tokens: Count | None = Field(
        default=None,
        description=(
            "Tokens, prompt and output together, that a typical request holds at its end. A quarter of "
            "contextLength if absent."
        ),
    )


class EvictionMode(StrEnum):
    """How tokens may be dropped from a request's KV cache."""

    AUTO = "Auto"
    NONE = "None"
    STREAMING = "Streaming"


class Streaming(ApiModel):
    """Attention sinks plus a window of recent tokens."""

    sink_tokens: Count = Field(description="Tokens kept at the start of each request.")
    window_tokens: Count = Field(description="Most recent tokens kept of each request.")


class Eviction(ApiModel):
    """KV eviction inside a request; lossy, so Auto uses it under quality Economy only."""

    rules: ClassVar[tuple[Rule, ...]] = (only_with_mode("streaming", "Streaming"),)

    mode: EvictionMode = Field(
        default=EvictionMode.AUTO,
        description=(
            "Auto: the planner may evict, under quality Economy only. None: every token stays. Streaming: "
            "keep the first tokens and a window of recent ones."
        ),
    )
    streaming: Streaming | None = Field(
        default=None, description="How much is kept. Required with mode Streaming, refused with any other."
    )


class OffloadMode(StrEnum):
    """Whether evicted KV blocks move to slower memory."""

    AUTO = "Auto"
    NONE = "None"
    FIXED = "Fixed"


class FixedOffload(ApiModel):
    """Sizes of the slower tiers."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.hostMemory) || has(self.disk)",
            "write hostMemory, disk or both, or set mode to None",
            lambda sizes: sizes.host_memory is not None or sizes.disk is not None,
        ),
    )

    host_memory: Quantity | None = Field(
        default=None, description="Host memory per replica, a quantity such as 64Gi."
    )
    disk: Quantity | None = Field(
        default=None, description="Ephemeral disk per replica, a quantity such as 200Gi."
    )


class Offload(ApiModel):
    """Tiers below GPU memory for KV blocks that no running request needs."""

    rules: ClassVar[tuple[Rule, ...]] = (only_with_mode("fixed", "Fixed"),)

    mode: OffloadMode = Field(
        default=OffloadMode.AUTO,
        description="Auto: the planner sizes the tiers. None: no tiers. Fixed: tiers of the given sizes.",
    )
    fixed: FixedOffload | None = Field(
        default=None, description="Sizes of the tiers. Required with mode Fixed, refused with any other."
    )


class SharingMode(StrEnum):
    """Whether replicas share prefix KV."""

    NONE = "None"
    POOL = "Pool"


class Pool(ApiModel):
    """A KV pool shared by the replicas."""

    size: Quantity | None = Field(
        default=None,
        description="Size of the pool, a quantity such as 256Gi; the planner's choice if absent.",
    )


class Sharing(ApiModel):
    """Sharing of prefix KV between replicas."""

    rules: ClassVar[tuple[Rule, ...]] = (only_with_mode("pool", "Pool"),)

    mode: SharingMode = Field(
        default=SharingMode.NONE,
        description="None: each replica keeps its own. Pool: replicas read each other's prefixes.",
    )
    pool: Pool | None = Field(
        default=None, description="The pool. Required with mode Pool, refused with any other."
    )


class PrefixCaching(StrEnum):
    """Reuse of KV blocks between requests that start alike."""

    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Cache(ApiModel):
    """How the KV cache is stored, kept and shared."""

    dtype: EngineName = Field(
        default="Auto",
        description=(
            "Data type of the KV cache. Auto lets the planner choose the least lossy that fits; an engine "
            "dtype such as fp8 or bfloat16 pins it."
        ),
    )
    prefix_caching: PrefixCaching = Field(
        default=PrefixCaching.AUTO,
        description=(
            "Reuse of KV blocks between requests that begin alike. Auto enables it where it costs no "
            "capacity; on hybrid models it can cost most of the concurrency."
        ),
    )
    eviction: Eviction = Field(
        default_factory=Eviction,
        description="Whether tokens of a running request may be dropped. Lossy: only with quality Economy.",
    )
    offload: Offload = Field(
        default_factory=Offload,
        description=(
            "Slower tiers for KV blocks that no running request needs. They raise the hit rate of the "
            "prefix cache, never the number of running requests."
        ),
    )
    sharing: Sharing = Field(
        default_factory=Sharing, description="Whether replicas share the KV blocks of common prefixes."
    )


class Weights(ApiModel):
    """How the weights are stored."""

    quantization: EngineName = Field(
        default="Auto",
        description=(
            "Quantization on top of what the checkpoint declares: Auto lets the planner choose, None leaves "
            "the weights as they are, an engine name such as fp8 pins it."
        ),
    )


class Accelerator(StrEnum):
    """What the engine computes on."""

    GPU = "GPU"
    CPU = "CPU"


class Parallelism(ApiModel):
    """How one replica is spread over GPUs; the planner chooses what is absent."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.tensor) || !has(self.decodeContext) || self.tensor % self.decodeContext == 0",
            "decodeContext splits the tensor parallel ranks: write a divisor of tensor",
            lambda p: None in (p.tensor, p.decode_context) or p.tensor % p.decode_context == 0,
        ),
    )

    tensor: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Tensor parallel size: GPUs that share each layer."
    )
    pipeline: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Pipeline parallel size: groups of layers, each on GPUs of its own."
    )
    decode_context: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None,
        description="Decode context parallel size: tensor parallel ranks that split the KV cache by tokens.",
    )


class Hardware(ApiModel):
    """Where replicas may run; the planner chooses what is absent."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.accelerator) || self.accelerator != 'CPU' || "
            "!(has(self.maxGPUsPerReplica) || has(self.products) && size(self.products) > 0)",
            "products and maxGPUsPerReplica are about GPUs: remove them, or set accelerator to GPU",
            lambda h: h.accelerator != Accelerator.CPU or not (h.products or h.max_gpus_per_replica),
        ),
        Rule(
            "!has(self.maxGPUsPerReplica) || !has(self.parallelism) || "
            "(has(self.parallelism.tensor) ? self.parallelism.tensor : 1) * "
            "(has(self.parallelism.pipeline) ? self.parallelism.pipeline : 1) <= self.maxGPUsPerReplica",
            "tensor times pipeline is the number of GPUs of a replica: lower them or raise maxGPUsPerReplica",
            lambda h: (
                h.max_gpus_per_replica is None
                or (h.parallelism.tensor or 1) * (h.parallelism.pipeline or 1) <= h.max_gpus_per_replica
            ),
        ),
    )

    accelerator: Accelerator | None = Field(
        default=None, description="GPU or CPU; the planner's choice if absent."
    )
    products: Annotated[
        list[
            Annotated[
                str,
                Field(
                    max_length=63,
                    description="A GPU product.",
                ),
                Form(
                    r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$",
                    "write a GPU product as node labels spell it, such as NVIDIA-H100-80GB-HBM3",
                ),
            ]
        ],
        Field(max_length=32),
        ListSet(),
    ] = Field(
        default_factory=list,
        description=(
            "GPU products that may be used, as nodes label them or as the catalogue calls them, such as "
            "NVIDIA-H100-80GB-HBM3 or L40S; all if empty."
        ),
    )
    parallelism: Parallelism = Field(
        default_factory=Parallelism, description="Pinned parallel sizes; the planner chooses the others."
    )
    max_gpus_per_replica: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        alias="maxGPUsPerReplica",
        description="Most GPUs that one replica may take; no limit if absent.",
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
