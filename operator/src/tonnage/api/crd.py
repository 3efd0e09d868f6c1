"""pydantic models -> the CustomResourceDefinition: a strict structural schema with CEL rules.

Rules of the translation: references inlined, `null` dropped, unions of several types refused, bounds as
OpenAPI 3.0 spells them, every default that pydantic makes by a factory written out, so that nested
defaults apply on the API server.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from tonnage.api.base import GROUP, KIND, PLURAL, VERSION
from tonnage.api.v1alpha1 import Spec, Status

Schema = dict[str, Any]
_DROPPED = {"title", "additionalProperties", "$defs", "discriminator", "examples"}


def build_crd() -> Schema:
    """The CRD as a dict, ready for YAML; the same for every caller."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["llmdep"],
                "categories": ["all"],
            },
            "versions": [_version()],
        },
    }


def _version() -> Schema:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": _columns(),
        "schema": {
            "openAPIV3Schema": {
                "description": "An LLM to serve: Tonnage plans its memory, starts and verifies it.",
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {
                        "type": "object",
                        # children carry this name, a Job with 19 characters more: a DNS label each
                        "properties": {
                            "name": {
                                "type": "string",
                                "maxLength": 44,
                                "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$",
                            }
                        },
                    },
                    "spec": structural(Spec),
                    "status": structural(Status),
                },
            }
        },
    }


def _columns() -> list[Schema]:
    paths = [
        ("Ready", ".status.readySummary", 0),
        ("GPU", ".status.gpuSummary", 0),
        ("KV-Dtype", ".status.plan.kv.dtype", 0),
        ("Context", ".status.plan.inputs.contextLength", 0),
        ("Concurrency", ".status.plan.kv.concurrencyAtTypical", 0),
        ("KV-Used", ".status.kvUsedSummary", 0),
        ("Phase", ".status.phase", 0),
        ("Reason", ".status.conditions[?(@.type=='Ready')].reason", 1),
    ]
    columns: list[Schema] = [
        {
            "name": name,
            "type": "integer" if name == "Context" else "string",
            "jsonPath": path,
            "priority": priority,
        }
        for name, path, priority in paths
    ]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    return columns


def structural(model: type[BaseModel]) -> Schema:
    """The structural OpenAPI 3.0 schema of a model.

    Raises ValueError where a type has no structural form (a union of several types, a recursion).
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    schema = _convert(document, definitions=document.get("$defs", {}), path=(model.__name__,))
    return _with_defaults(model, schema)


def _convert(node: Schema, *, definitions: dict[str, Schema], path: tuple[str, ...]) -> Schema:
    node = _resolve(node, definitions=definitions, path=path)
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            **({"description": node["description"]} if "description" in node else {}),
        }
    out = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    _bounds(out)
    if isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _convert(
            node["additionalProperties"], definitions=definitions, path=(*path, "*")
        )
        out["maxProperties"] = out.get("maxProperties", 64)
    if "properties" in out:
        out["properties"] = {
            name: _convert(child, definitions=definitions, path=(*path, name))
            for name, child in out["properties"].items()
        }
    if "items" in out:
        out["items"] = _convert(out["items"], definitions=definitions, path=(*path, "[]"))
    if out.get("default", ...) is None:
        del out["default"]
    return out


def _resolve(node: Schema, *, definitions: dict[str, Schema], path: tuple[str, ...]) -> Schema:
    """Inline a reference and drop `null` from an optional; keys beside the reference win."""
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    if len(options) > 1:
        raise ValueError(f"{'.'.join(path)}: a union of types has no structural form")
    beside = {key: value for key, value in node.items() if key not in ("anyOf", "$ref")}
    if options:
        return {**_resolve(options[0], definitions=definitions, path=path), **beside}
    if "$ref" not in node:
        return node
    name = node["$ref"].rsplit("/", 1)[-1]
    if path.count(f"#{name}") or len(path) > 24:
        raise ValueError(f"{'.'.join(path)}: {name} is recursive")
    return {**_resolve(definitions[name], definitions=definitions, path=path), **beside}


def _bounds(out: Schema) -> None:
    """`exclusiveMinimum: n` -> `minimum: n, exclusiveMinimum: true`, as OpenAPI 3.0 spells it."""
    for side in ("Minimum", "Maximum"):
        value = out.get(f"exclusive{side}")
        if value is not None and not isinstance(value, bool):
            out[side.lower()] = value
            out[f"exclusive{side}"] = True


def _with_defaults(model: type[BaseModel], schema: Schema) -> Schema:
    """Write out the defaults that pydantic makes by a factory (it leaves them out of its schema)."""
    for name, field in model.model_fields.items():
        alias = field.alias or name
        child = schema["properties"][alias]
        if field.default_factory is not None:
            value = field.get_default(call_default_factory=True, validated_data={})
            # whole: the API server validates a default before it fills in nested ones
            default = to_jsonable_python(value, by_alias=True, exclude_none=True)
            if default and any(default.values() if isinstance(default, dict) else default):
                child["default"] = default
            else:
                child.pop("default", None)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            _with_defaults(field.annotation, child)
    return schema
