"""pydantic models -> the CustomResourceDefinition: a strict structural schema with CEL rules.

Rules of the translation: references inlined, `null` dropped, unions of several types refused, bounds as
OpenAPI 3.0 spells them, integers with a format. Rules, list types and nested defaults come with the
models (tonnage.api.base, tonnage.api.rules).
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from tonnage.api.base import GROUP, KIND, PLURAL, VERSION
from tonnage.api.rules import VALIDATIONS
from tonnage.api.v1alpha1 import OBJECT_NAME, Spec, Status

Schema = dict[str, Any]
_DROPPED = {"title", "additionalProperties", "propertyNames", "$defs", "discriminator", "examples"}


def build_crd() -> Schema:
    """The CRD as a dict, ready for YAML; the same for every caller."""
    crd = {
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
    # through text, so that no part is shared: YAML would write it once and refer to it by an anchor
    copied: Schema = json.loads(json.dumps(crd))
    return copied


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
                VALIDATIONS: [
                    {
                        "rule": f"self.metadata.name.matches(r'{OBJECT_NAME.pattern}')",
                        "message": OBJECT_NAME.message,
                        "fieldPath": ".metadata.name",
                    }
                ],
                "properties": {
                    "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
                    "kind": {"type": "string", "description": KIND},
                    "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
                    "spec": structural(Spec),
                    "status": _without_defaults(structural(Status)),
                },
            }
        },
    }


# name, path, type, what it is; the last ones only with `-o wide`
_COLUMNS = (
    ("Ready", ".status.readySummary", "string", "Ready replicas of wanted ones."),
    ("GPU", ".status.gpuSummary", "string", "Accelerators of one replica."),
    ("KV-Dtype", ".status.plan.kv.dtype", "string", "Data type of the KV cache."),
    ("Context", ".status.plan.inputs.contextLength", "integer", "Longest request served, in tokens."),
    ("Concurrency", ".status.plan.kv.concurrencyAtTypical", "string", "Typical requests that fit at once."),
    ("KV-Used", ".status.kvUsedSummary", "string", "Use of the KV cache, in steps of 10 %."),
    ("Phase", ".status.phase", "string", "One word for the state."),
    ("Age", ".metadata.creationTimestamp", "date", "Since the object was made."),
)
_WIDE_COLUMNS = (
    ("Model", ".spec.model.uri", "string", "Where the model is."),
    ("Reason", ".status.conditions[?(@.type=='Ready')].reason", "string", "Why it is Ready, or is not."),
)


def _columns() -> list[Schema]:
    return [
        {"name": name, "type": kind, "jsonPath": path, "description": text, "priority": priority}
        for priority, columns in enumerate((_COLUMNS, _WIDE_COLUMNS))
        for name, path, kind, text in columns
    ]


def structural(model: type[BaseModel]) -> Schema:
    """The structural OpenAPI 3.0 schema of a model.

    Raises ValueError where a type has no structural form (a union of several types, a recursion).
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(document, definitions=document.get("$defs", {}), path=(model.__name__,))


def _whole(out: Schema) -> None:
    """An integer between bounds: the rule says which, and refuses 8.0, which the type alone lets pass."""
    low, high = out.get("minimum"), out.get("maximum")
    if low is not None and high is not None:
        message = f"write a whole number from {low} to {high}"
        out[VALIDATIONS] = [{"rule": f"self >= {low} && self <= {high}", "message": message}]


def _without_defaults(schema: Schema) -> Schema:
    """The operator writes a status whole: nothing is filled in."""
    out = {key: value for key, value in schema.items() if key != "default"}
    if "default" in schema and "description" in out:
        out["description"] = out["description"].partition(" Default: ")[0]
    if "properties" in out:
        out["properties"] = {name: _without_defaults(child) for name, child in out["properties"].items()}
    if "items" in out:
        out["items"] = _without_defaults(out["items"])
    return out


def _convert(node: Schema, *, definitions: dict[str, Schema], path: tuple[str, ...]) -> Schema:
    node = _resolve(node, definitions=definitions, path=path)
    out = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    _bounds(out)
    if out.get("type") == "integer":
        out["format"] = "int32" if out.get("maximum", 2**31) < 2**31 else "int64"
        _whole(out)
    if isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _convert(
            node["additionalProperties"], definitions=definitions, path=(*path, "*")
        )
    if "properties" in out:
        out["properties"] = {
            name: _convert(child, definitions=definitions, path=(*path, name))
            for name, child in out["properties"].items()
        }
    if "items" in out:
        out["items"] = _convert(out["items"], definitions=definitions, path=(*path, "[]"))
    if out.get("default", ...) is None:
        del out["default"]
    if isinstance(out.get("default"), str | int) and out["default"] != "" and "description" in out:
        # kubectl explain shows no defaults
        out["description"] += f" Default: {_spelled(out['default'])}."
    return out


def _spelled(default: str | int) -> str:
    return json.dumps(default) if isinstance(default, bool) else str(default)


def _resolve(node: Schema, *, definitions: dict[str, Schema], path: tuple[str, ...]) -> Schema:
    """Inline a reference and drop `null` from an optional; keys beside the reference win."""
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    if len(options) > 1:
        raise ValueError(f"{'.'.join(path)}: a union of types has no structural form")
    beside = {key: value for key, value in node.items() if key not in ("anyOf", "$ref")}
    if options:
        return _merged(_resolve(options[0], definitions=definitions, path=path), beside)
    if "$ref" not in node:
        return node
    name = node["$ref"].rsplit("/", 1)[-1]
    if path.count(f"#{name}") or len(path) > 24:
        raise ValueError(f"{'.'.join(path)}: {name} is recursive")
    return _merged(_resolve(definitions[name], definitions=definitions, path=path), beside)


def _merged(inner: Schema, beside: Schema) -> Schema:
    """Keys beside a reference win, rules of both hold."""
    rules = [*inner.get(VALIDATIONS, ()), *beside.get(VALIDATIONS, ())]
    return {**inner, **beside, **({VALIDATIONS: rules} if rules else {})}


def _bounds(out: Schema) -> None:
    """`exclusiveMinimum: n` -> `minimum: n, exclusiveMinimum: true`, as OpenAPI 3.0 spells it."""
    for side in ("Minimum", "Maximum"):
        value = out.get(f"exclusive{side}")
        if value is not None and not isinstance(value, bool):
            out[side.lower()] = value
            out[f"exclusive{side}"] = True
