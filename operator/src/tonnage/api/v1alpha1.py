"""LLMDeployment v1alpha1, whole: what users write and read."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from tonnage.api.base import ApiModel, cel, schema_extra
from tonnage.api.operation import Engine, Rollout, Scaling, ScalingMode, Template
from tonnage.api.status import Status
from tonnage.api.workload import Cache, Hardware, Model, Quality, Weights, Workload


class Spec(ApiModel):
    """The model, the work it must hold, and how much quality may be given up; the rest has defaults."""

    model_config = ConfigDict(
        json_schema_extra=schema_extra(
            cel(
                "!(self.scaling.mode == 'Internal' && has(self.replicas))",
                "replicas is decided by the autoscaler: remove it, and set scaling.internal.minReplicas and "
                "maxReplicas",
            )
        )
    )

    model: Model = Field(description="The model to serve.")
    workload: Workload = Field(default_factory=Workload, description="What one replica must hold.")
    quality: Quality = Field(
        default=Quality.NEAR_LOSSLESS,
        description="How much quality the planner may give up: Lossless, NearLossless or Economy.",
    )
    cache: Cache = Field(default_factory=Cache, description="KV cache.")
    weights: Weights = Field(default_factory=Weights, description="Weights.")
    hardware: Hardware = Field(default_factory=Hardware, description="Where replicas may run.")
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Replicas where scaling.mode is None or External; 1 if absent."
    )
    scaling: Scaling = Field(default_factory=Scaling, description="Who decides the number of replicas.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a changed plan replaces the old one.")
    engine: Engine = Field(default_factory=Engine, description="The inference engine.")
    template: Template = Field(default_factory=Template, description="Pod fields that a user may set.")

    @property
    def wanted_replicas(self) -> int:
        """Replicas to run where Tonnage's own autoscaler does not decide."""
        return 1 if self.replicas is None else self.replicas

    @property
    def served_name(self) -> str:
        """Name of the model in requests."""
        return self.model.served_name or self.model.uri.rstrip("/").rsplit("/", 1)[-1]


__all__ = ["ScalingMode", "Spec", "Status"]
