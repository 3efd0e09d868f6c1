"""Shared pieces of the API models: naming, scalar types with bounds, CEL rules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "tonnage.dev"
VERSION = "v1alpha1"
KIND = "LLMDeployment"
PLURAL = "llmdeployments"


def cel(rule: str, message: str) -> dict[str, str]:
    """One CEL validation of the CRD; `message` says what to write instead."""
    return {"rule": rule, "message": message}


def only_with_mode(member: str, mode: str) -> dict[str, str]:
    """The rule of a discriminated union: `member` is set if and only if `mode` names it."""
    return cel(
        f"(self.mode == '{mode}') == has(self.{member})",
        f"set {member} if and only if mode is {mode}",
    )


def schema_extra(*validations: dict[str, str], **other: Any) -> dict[str, Any]:
    """JSON-schema extension: CEL rules, and x-kubernetes-* keys written with underscores."""
    extra: dict[str, Any] = {key.replace("_", "-"): value for key, value in other.items()}
    if validations:
        extra["x-kubernetes-validations"] = list(validations)
    return extra


class ApiModel(BaseModel):
    """Base of all API objects: camelCase on the wire, unknown fields refused, frozen."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
# no upper bound: the API server reads 2**63 - 1 as a float, which is one too many for int64
Bytes64 = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
Count64 = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
EngineName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Quantity = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        examples=["64Gi", "500m"],
    ),
]
Duration = Annotated[
    str, Field(max_length=32, pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$", examples=["90s", "15m"])
]
ShortName = Annotated[str, Field(min_length=1, max_length=63)]
ShortText = Annotated[str, Field(max_length=256)]
