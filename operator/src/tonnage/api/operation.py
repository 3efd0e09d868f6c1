"""The part of the spec that says how replicas run: scaling, roll-out and engine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tonnage.api.base import ATOMIC_LIST, ApiModel, Lasts
from tonnage.api.rules import Form, ListMap, Rule, only_with_mode


class ScalingMode(StrEnum):
    """Who decides the number of replicas."""

    INTERNAL = "Internal"
    EXTERNAL = "External"
    NONE = "None"


class Percentile(ApiModel):
    """A latency bound."""

    p95: Annotated[str, Field(max_length=32), Lasts("1ms", "1h")] = Field(
        description="95th percentile to stay below, such as 2s or 50ms."
    )


class Objective(ApiModel):
    """Latencies to hold while scaling."""

    time_to_first_token: Percentile | None = Field(
        default=None, description="From the arrival of a request to its first token."
    )
    inter_token_latency: Percentile | None = Field(
        default=None, description="Between one token of a request and the next."
    )


class InternalScaling(ApiModel):
    """Bounds and objective of Tonnage's own autoscaler."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be above maxReplicas: lower it or raise maxReplicas",
            lambda bounds: bounds.min_replicas <= bounds.max_replicas,
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Fewest replicas; 0 lets an idle model release its hardware."
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(description="Most replicas.")
    objective: Objective = Field(
        default_factory=Objective,
        description="Latencies to hold; without them, only KV capacity decides the number of replicas.",
    )


class Scaling(ApiModel):
    """Who decides the number of replicas, and within which bounds."""

    rules: ClassVar[tuple[Rule, ...]] = (only_with_mode("internal", "Internal"),)

    mode: ScalingMode = Field(
        default=ScalingMode.NONE,
        description=(
            "None: spec.replicas, written by you. External: spec.replicas, written by you once, and then by "
            "an autoscaler through the scale subresource. Internal: Tonnage decides, within the bounds of "
            "internal."
        ),
    )
    internal: InternalScaling | None = Field(
        default=None,
        description="Bounds of the autoscaler. Required with mode Internal, refused with any other.",
    )


class Rollout(ApiModel):
    """How a changed plan replaces the old one."""

    allow_downtime: bool = Field(
        default=False,
        description="A changed plan may stop all old replicas first; it then needs no room beside them.",
    )
    progress_deadline: Annotated[str, Field(max_length=32), Lasts("1s", "168h")] | None = Field(
        default=None,
        description="How long a roll-out may make no progress before it is reported as stuck; 30m if absent.",
    )
    paused: bool = Field(
        default=False, description="Keep the running replicas as they are; a changed plan waits."
    )


class Verification(StrEnum):
    """What a worker requires of its engine before it becomes ready."""

    STRICT = "Strict"
    AT_LEAST = "AtLeast"
    REPORT = "Report"


class EnvVar(ApiModel):
    """An environment variable of the engine."""

    name: Annotated[
        str,
        Field(max_length=256),
        Form(
            r"^[A-Za-z_][A-Za-z0-9_]*$",
            "write the name of a variable: letters, digits and '_', not beginning with a digit",
        ),
    ] = Field(description="Name of the variable.")
    value: Annotated[str, Field(max_length=4096)] = Field(
        default="", description="Its value, passed as it is written: $(OTHER) is not expanded."
    )


class Engine(ApiModel):
    """The inference engine."""

    image: (
        Annotated[
            str,
            Field(max_length=512),
            Form(
                r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
                "write an image reference such as registry.example.com/tonnage-worker:0.1.0",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Worker image, with the engine and tonnage_worker inside; the chart's default if absent.",
    )
    version: (
        Annotated[
            str,
            Field(max_length=32),
            Form(r"^[0-9]+\.[0-9]+(\.[0-9]+)?$", "write a vLLM release such as 0.32.0"),
        ]
        | None
    ) = Field(
        default=None,
        description="vLLM version inside the image, whose rules the plan follows; the chart's if absent.",
    )
    extra_args: Annotated[
        list[
            Annotated[str, Field(min_length=1, max_length=1024, description="One word of the command line.")]
        ],
        Field(max_length=64),
    ] = Field(
        default_factory=list,
        description=(
            "Further engine arguments, one word each, passed as they are written. Arguments that the plan "
            "pins are refused with the field to use instead."
        ),
        json_schema_extra=ATOMIC_LIST,
    )
    env: Annotated[list[EnvVar], Field(max_length=64), ListMap(("name",))] = Field(
        default_factory=list,
        description=(
            "Further environment of the engine. Variables that change the plan are refused. Not for secrets: "
            "mount one with template.volumes."
        ),
    )
    verification: Verification = Field(
        default=Verification.STRICT,
        description=(
            "Strict: ready only if the engine holds exactly what was planned. AtLeast: not less. "
            "Report: always ready, differences are reported."
        ),
    )


__all__ = [
    "Engine",
    "EnvVar",
    "Rollout",
    "Scaling",
    "ScalingMode",
    "Verification",
]
