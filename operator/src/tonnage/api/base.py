"""Shared pieces of the API models: naming, what null means, scalar types with bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, to_jsonable_python

from tonnage.api import quantities
from tonnage.api.rules import VALIDATIONS, Checked, Form, Obeys, Rule, fits

GROUP = "tonnage.dev"
VERSION = "v1alpha1"
KIND = "LLMDeployment"
PLURAL = "llmdeployments"

ATOMIC_LIST: JsonDict = {"x-kubernetes-list-type": "atomic"}
ATOMIC_MAP: JsonDict = {"x-kubernetes-map-type": "atomic"}


class ApiModel(BaseModel):
    """Base of all API objects: camelCase on the wire, unknown fields refused, frozen."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    rules: ClassVar[tuple[Rule, ...]] = ()
    atomic: ClassVar[bool] = False
    """Server-side apply takes the object as a whole."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        """As on the API server, a field that is null is a field that is absent."""
        if not isinstance(given, dict) or None not in given.values():
            return given
        known = {field.alias for field in cls.model_fields.values()}
        return {name: value for name, value in given.items() if value is not None or name not in known}

    @model_validator(mode="after")
    def _obey(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        out = handler(schema)
        target = handler.resolve_ref_schema(out)
        if cls.rules:
            target[VALIDATIONS] = [rule.as_schema() for rule in cls.rules]
        if cls.atomic:
            target.update(ATOMIC_MAP)
        for field in cls.model_fields.values():
            if field.default_factory is not None:
                _write_default(
                    target["properties"][field.alias], field.get_default(call_default_factory=True)
                )
        return out


def _write_default(schema: dict[str, Any], value: Any) -> None:
    """Write out what a factory makes, whole: the API server validates a default before it fills in others."""
    default = without_empty(to_jsonable_python(value, by_alias=True, exclude_none=True))
    if default:
        schema["default"] = default


def without_empty(value: Any) -> Any:
    """`value` without members that are empty objects, lists or maps: they mean the same as absent ones."""
    if isinstance(value, list):
        return [without_empty(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: without_empty(child) for name, child in value.items()}
    return {name: child for name, child in kept.items() if child not in ({}, [])}


class _QuantityForm:
    """A Kubernetes quantity above zero, as text or as a whole number, kept as it was written."""

    PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
    MESSAGE = "write a quantity above zero and at most 1Ei, such as 64Gi or 500m"
    RULE = (
        f"string(self).matches(r'{PATTERN}') && quantity(string(self)).isGreaterThan(quantity('0')) && "
        "!quantity(string(self)).isGreaterThan(quantity('1Ei'))"
    )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> int | str:
        if isinstance(value, bool) or not isinstance(value, int | str) or len(str(value)) > 32:
            raise ValueError(self.MESSAGE)
        if not fits(self.PATTERN, str(value)) or not 0 < quantities.quantity(value) <= 2**60:
            raise ValueError(self.MESSAGE)
        return value

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            "pattern": self.PATTERN,
            VALIDATIONS: [{"rule": self.RULE, "message": self.MESSAGE}],
        }


_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_NAME = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_QUALIFIED = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = rf"^({_DNS_NAME}/)?{_QUALIFIED}$"

Quantity = Annotated[int | str, _QuantityForm()]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
# no upper bound: the API server reads 2**63 - 1 as a float, which is one too many for int64
Bytes64 = Annotated[int, Field(ge=0)]
Count64 = Annotated[int, Field(ge=0)]
ShortText = Annotated[str, Field(max_length=256)]
Name = Annotated[
    str,
    Field(max_length=253),
    Form(
        f"^{_DNS_NAME}$",
        "write the name of an object of the same namespace: lower case letters, digits, '-' and '.'",
    ),
]
ClusterName = Annotated[
    str,
    Field(max_length=253),
    Form(f"^{_DNS_NAME}$", "write an object's name: lower case letters, digits, '-' and '.'"),
]
VolumeName = Annotated[
    str,
    Field(max_length=58),
    Form(f"^{_DNS_LABEL}$", "write a short name: lower case letters, digits and '-'"),
]
EngineName = Annotated[
    str,
    Field(max_length=63),
    Form(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        "write Auto or the engine's own name: letters, digits, '_', '-' and '.'",
    ),
]
LabelKey = Annotated[
    str,
    Field(max_length=317),
    Form(_LABEL_KEY, "write a label key such as topology.kubernetes.io/zone"),
    Obeys(
        Rule(
            "self.indexOf('/') <= 253",
            "the part before '/' has at most 253 characters",
            lambda key: key.find("/") <= 253,
        )
    ),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    Form(
        rf"^({_QUALIFIED})?$",
        "write a label value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with a "
        "letter or digit",
    ),
]


def _without_nulls(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    return {key: value for key, value in given.items() if value is not None}


KEYS = Obeys(
    Rule(
        f"self.all(key, size(key) <= 317 && key.indexOf('/') <= 253 && key.matches(r'{_LABEL_KEY}'))",
        "write keys as Kubernetes does: an optional DNS name and '/', then at most 63 letters, digits, "
        "'-', '_' and '.'",
        lambda found: all(
            len(key) <= 317 and key.find("/") <= 253 and fits(_LABEL_KEY, key) for key in found
        ),
    )
)
Labels = Annotated[
    dict[str, Annotated[LabelValue, Field(description="Value of the label.")]],
    Field(max_length=32),
    KEYS,
    BeforeValidator(_without_nulls),
]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096, description="Value of the annotation.")]],
    Field(max_length=32),
    KEYS,
    BeforeValidator(_without_nulls),
]


@dataclass(frozen=True, slots=True)
class Lasts(Checked):
    """A text that is a duration from `least` to `most`, such as 50ms, 90s, 15m or 1h30m."""

    least: str
    most: str
    # units at most once and in order: no sum of them overflows what Go and CEL count in
    PATTERN: ClassVar[str] = r"^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,8}(\.[0-9]{1,3})?s)?([0-9]{1,9}ms)?$"

    @property
    def message(self) -> str:
        """What to write."""
        return f"write a duration from {self.least} to {self.most}, such as 50ms, 90s, 15m or 1h30m"

    def check(self, value: str) -> str:
        """Return `value` or raise ValueError."""
        low, high = quantities.exact_seconds(self.least), quantities.exact_seconds(self.most)
        if not value or not fits(self.PATTERN, value) or not low <= quantities.exact_seconds(value) <= high:
            raise ValueError(self.message)
        return value

    def extend(self, schema: JsonSchemaValue) -> None:
        """Add the pattern for tools, and the rule for its message."""
        schema["pattern"] = self.PATTERN
        rule = (
            f"self.matches(r'{self.PATTERN}') && size(self) > 0 && "
            f"duration(self) >= duration('{self.least}') && duration(self) <= duration('{self.most}')"
        )
        schema.setdefault(VALIDATIONS, []).append({"rule": rule, "message": self.message})
