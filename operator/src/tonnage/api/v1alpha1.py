"""LLMDeployment v1alpha1, whole: what users write and read."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from tonnage.api.base import ApiModel
from tonnage.api.operation import Engine, Rollout, Scaling, ScalingMode
from tonnage.api.rules import Form, Rule
from tonnage.api.status import Status
from tonnage.api.template import Template
from tonnage.api.workload import Cache, EvictionMode, Hardware, Model, Quality, Weights, Workload

# children carry this name, a Job with 19 characters more: a DNS label each
OBJECT_NAME = Form(
    r"^[a-z]([-a-z0-9]{0,42}[a-z0-9])?$",
    "write a metadata.name of at most 44 lower case letters, digits and '-', beginning with a letter: "
    "everything that is made for the object carries it",
)


def _decided_by_the_autoscaler(spec: Any) -> str:
    bounds = spec.scaling.internal
    return (
        f"replicas is decided by the autoscaler, from minReplicas {bounds.min_replicas} to maxReplicas "
        f"{bounds.max_replicas} of scaling.internal: change those, or set scaling.mode to None or External"
    )


class Spec(ApiModel):
    """The model, the work it must hold, and how much quality may be given up; the rest has defaults."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(self.scaling.mode == 'Internal' && has(self.replicas))",
            "replicas is decided by the autoscaler: remove it, and set scaling.internal.minReplicas and "
            "maxReplicas",
            lambda spec: spec.scaling.mode is not ScalingMode.INTERNAL or spec.replicas is None,
            expression=(
                "'replicas is decided by the autoscaler, from minReplicas %d to maxReplicas %d of "
                "scaling.internal: change those, or set scaling.mode to None or External'"
                ".format([self.scaling.internal.minReplicas, self.scaling.internal.maxReplicas])"
            ),
            told=_decided_by_the_autoscaler,
        ),
        Rule(
            "self.scaling.mode != 'External' || has(self.replicas)",
            "scaling.mode External needs replicas, the number to start from: autoscalers read it before they "
            "write it",
            lambda spec: spec.scaling.mode is not ScalingMode.EXTERNAL or spec.replicas is not None,
        ),
        Rule(
            "self.cache.eviction.mode != 'Streaming' || self.quality == 'Economy'",
            "cache.eviction.mode Streaming drops tokens: set quality to Economy, or the mode to Auto or None",
            lambda spec: spec.cache.eviction.mode is not EvictionMode.STREAMING or spec.quality == "Economy",
        ),
    )

    model: Model = Field(description="The model to serve.")
    workload: Workload = Field(default_factory=Workload, description="What one replica must hold.")
    quality: Quality = Field(
        default=Quality.NEAR_LOSSLESS,
        description=(
            "How much quality the planner may give up to make the workload fit. Lossless: the model as "
            "shipped. NearLossless: also 8-bit KV and weights. Economy: also 4-bit KV and eviction. The "
            "least lossy that fits is used."
        ),
    )
    cache: Cache = Field(default_factory=Cache, description="How the KV cache is stored, kept and shared.")
    weights: Weights = Field(default_factory=Weights, description="How the weights are stored.")
    hardware: Hardware = Field(
        default_factory=Hardware, description="Where replicas may run; the planner chooses what is absent."
    )
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description=(
            "Number of replicas, 1 if absent; `kubectl scale` writes it. With scaling.mode External it is "
            "where the autoscaler starts; with Internal it must be absent."
        ),
    )
    scaling: Scaling = Field(default_factory=Scaling, description="Who decides the number of replicas.")
    rollout: Rollout = Field(
        default_factory=Rollout, description="How replicas of a changed plan replace the old ones."
    )
    engine: Engine = Field(
        default_factory=Engine, description="The inference engine, its image and further settings."
    )
    template: Template = Field(
        default_factory=Template,
        description="The pod fields that may be set; all others belong to the plan.",
    )

    @property
    def wanted_replicas(self) -> int:
        """Replicas to run where Tonnage's own autoscaler does not decide."""
        return 1 if self.replicas is None else self.replicas

    @property
    def served_name(self) -> str:
        """Name of the model in requests."""
        return self.model.served_name or self.model.uri.rstrip("/").rsplit("/", 1)[-1]


__all__ = ["ScalingMode", "Spec", "Status"]
