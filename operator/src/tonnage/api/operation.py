"""The part of the spec that says how replicas run: scaling, roll-out, engine and pod template."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from tonnage.api.base import (
    ApiModel,
    Duration,
    Name,
    Quantity,
    ShortText,
    cel,
    only_with_mode,
    schema_extra,
)


class ScalingMode(StrEnum):
    """Who decides the number of replicas."""

    INTERNAL = "Internal"
    EXTERNAL = "External"
    NONE = "None"


class Percentile(ApiModel):
    """A latency bound."""

    p95: Duration = Field(description="95th percentile, such as 2s or 50ms.")


class Objective(ApiModel):
    """Latencies to hold while scaling."""

    time_to_first_token: Percentile | None = Field(default=None, description="Time to first token.")
    inter_token_latency: Percentile | None = Field(default=None, description="Time between tokens.")


class InternalScaling(ApiModel):
    """Bounds and objective of Tonnage's own autoscaler."""

    model_config = ConfigDict(
        json_schema_extra=schema_extra(
            cel("self.minReplicas <= self.maxReplicas", "minReplicas must not be above maxReplicas")
        )
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = Field(default=1, description="Fewest replicas.")
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(description="Most replicas.")
    objective: Objective = Field(default_factory=Objective, description="Latency objective.")


class Scaling(ApiModel):
    """Who decides the number of replicas, and within which bounds."""

    model_config = ConfigDict(json_schema_extra=schema_extra(only_with_mode("internal", "Internal")))

    mode: ScalingMode = Field(default=ScalingMode.NONE, description="Internal, External or None.")
    internal: InternalScaling | None = Field(default=None, description="Set if and only if mode is Internal.")


class Rollout(ApiModel):
    """How a changed plan replaces the old one."""

    allow_downtime: bool = Field(
        default=False, description="Stop old replicas first when there is no room for a surge."
    )
    progress_deadline: Duration | None = Field(
        default=None, description="How long a roll-out may make no progress; 30m if absent."
    )
    paused: bool = Field(default=False, description="Keep the running replicas as they are.")


class Verification(StrEnum):
    """What a worker requires of its engine before it becomes ready."""

    STRICT = "Strict"
    AT_LEAST = "AtLeast"
    REPORT = "Report"


class EnvVar(ApiModel):
    """An environment variable of the engine."""

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Name of the variable."
    )
    value: Annotated[str, Field(max_length=4096)] = Field(default="", description="Its value.")


class Engine(ApiModel):
    """The inference engine."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="Worker image; the chart's default if absent."
    )
    version: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")] | None = Field(
        default=None, description="vLLM version inside the image; the chart's default if absent."
    )
    extra_args: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=64)
    ] = Field(
        default_factory=list,
        description="Further engine arguments, one word each. Arguments that the plan pins are refused.",
        json_schema_extra=schema_extra(x_kubernetes_list_type="atomic"),
    )
    env: Annotated[list[EnvVar], Field(max_length=64)] = Field(
        default_factory=list,
        description="Environment of the engine. Variables that change the plan are refused.",
        json_schema_extra=schema_extra(x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["name"]),
    )
    verification: Verification = Field(
        default=Verification.STRICT,
        description=(
            "Strict: ready only if the engine holds exactly what was planned. AtLeast: not less. "
            "Report: always ready, differences are reported."
        ),
    )


class Toleration(ApiModel):
    """A toleration for node taints."""

    key: Annotated[str, Field(max_length=316)] = Field(default="", description="Taint key; empty means all.")
    operator: Annotated[str, Field(pattern="^(Equal|Exists)$")] = Field(
        default="Equal", description="Equal or Exists."
    )
    value: Annotated[str, Field(max_length=63)] = Field(default="", description="Taint value with Equal.")
    effect: Annotated[str, Field(pattern="^(|NoSchedule|PreferNoSchedule|NoExecute)$")] = Field(
        default="", description="Effect to tolerate; empty means all."
    )
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="How long NoExecute is tolerated."
    )


class Resources(ApiModel):
    """CPU and memory of one worker pod."""

    cpu: Quantity | None = Field(default=None, description="CPU request; 1 if absent.")
    memory: Quantity | None = Field(
        default=None, description="Memory request; what the plan needs if absent."
    )


class LocalReference(ApiModel):
    """A named object in the same namespace."""

    name: Name = Field(description="Name of the object.")


Labels = Annotated[dict[str, ShortText], Field(max_length=64)]
OpaqueObject = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]


class Template(ApiModel):
    """Pod fields that a user may set; all others belong to the plan."""

    labels: Labels = Field(default_factory=dict, description="Further pod labels.")
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] = Field(
        default_factory=dict, description="Further pod annotations."
    )
    resources: Resources = Field(default_factory=Resources, description="CPU and memory of a worker pod.")
    node_selector: Labels = Field(default_factory=dict, description="Labels that the node must carry.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default_factory=list,
        description="Taints that the pod tolerates.",
        json_schema_extra=schema_extra(x_kubernetes_list_type="atomic"),
    )
    affinity: OpaqueObject | None = Field(default=None, description="Pod affinity as in a Pod.")
    topology_spread_constraints: Annotated[list[OpaqueObject], Field(max_length=16)] = Field(
        default_factory=list,
        description="Topology spread constraints as in a Pod.",
        json_schema_extra=schema_extra(x_kubernetes_list_type="atomic"),
    )
    priority_class_name: Name | None = Field(default=None, description="PriorityClass of the pods.")
    runtime_class_name: Name | None = Field(default=None, description="RuntimeClass of the pods.")
    scheduler_name: Name | None = Field(default=None, description="Scheduler of the pods.")
    service_account_name: Name | None = Field(default=None, description="ServiceAccount of the pods.")
    image_pull_secrets: Annotated[list[LocalReference], Field(max_length=16)] = Field(
        default_factory=list,
        description="Secrets for pulling images.",
        json_schema_extra=schema_extra(x_kubernetes_list_type="map", x_kubernetes_list_map_keys=["name"]),
    )
    volumes: Annotated[list[OpaqueObject], Field(max_length=16)] = Field(
        default_factory=list,
        description="Further volumes: persistentVolumeClaim, emptyDir, configMap or secret.",
        json_schema_extra=schema_extra(x_kubernetes_list_type="atomic"),
    )


__all__ = [
    "Engine",
    "EnvVar",
    "Resources",
    "Rollout",
    "Scaling",
    "ScalingMode",
    "Template",
    "Toleration",
    "Verification",
]
