"""The tables of docs/api.md, from the same models as the CRD: `make crd` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.paths import REPOSITORY
from tonnage.api.crd import build_crd
from tonnage.api.support import NOT_BUILT

PAGE = REPOSITORY / "docs" / "api.md"
BEGIN = "<!-- what follows is written by `make crd` -->\n"
Schema = Mapping[str, Any]
_SAME = ("type", "properties", "required", "items", "x-kubernetes-list-type", "x-kubernetes-list-map-keys")


def build_page(page: str) -> str:
    """The page with its tables as the models are now; what is written by hand stays."""
    return page.partition(BEGIN)[0] + BEGIN + "\n" + "\n".join(_tables())


def _tables() -> Iterator[str]:
    schema = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    refused = {row.path: row.instead for row in NOT_BUILT}
    shown: dict[str, str] = {}
    for part in ("spec", "status"):
        yield from _object(part, schema[part], refused=refused, shown=shown)


def _object(path: str, schema: Schema, *, refused: Mapping[str, str], shown: dict[str, str]) -> Iterator[str]:
    """One object as a table, then the objects in it; what looks the same is shown once."""
    shown[_shape(schema)] = path
    yield f"### {path}\n"
    yield f"{schema['description']}\n"
    rules = [rule["message"] for rule in schema.get("x-kubernetes-validations", ())]
    if rules:
        yield "Refused otherwise: " + "; ".join(rules) + ".\n"
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    inner = []
    for name, child in schema["properties"].items():
        there = f"{path}.{name}".removeprefix("spec.")
        default = _default(child, required=name in schema.get("required", ()))
        yield f"| `{name}` | {_type(child, shown)} | {default} | {_meaning(child, refused.get(there))} |"
        found = child.get("items", child)
        if "properties" in found and _shape(found) not in shown:
            shown[_shape(found)] = f"{path}.{name}"
            inner.append((f"{path}.{name}", {**found, "description": child["description"]}))
    yield ""
    for there, found in inner:
        yield from _object(there, found, refused=refused, shown=shown)


def _shape(schema: Schema) -> str:
    """An object without its own words: two fields of one type are alike."""
    return json.dumps({key: schema[key] for key in _SAME if key in schema}, sort_keys=True)


def _type(schema: Schema, shown: Mapping[str, str]) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if "additionalProperties" in schema:
        return f"map of {schema['additionalProperties']['type']}s"
    if schema["type"] == "array":
        keys = schema.get("x-kubernetes-list-map-keys")
        by = f" by {', '.join(keys)}" if keys else ""
        of = _type(schema["items"], shown)
        plural = f"{of}s" if of in ("string", "object") else f"objects, {of},"
        return f"list of {plural}{by}, at most {schema['maxItems']}"
    if schema["type"] == "integer" and "maximum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    known = shown.get(_shape(schema)) if "properties" in schema else None
    return f"as `{known}`" if known else str(schema["type"])


def _default(schema: Schema, *, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    scalar = isinstance(value, str | int) and value != ""
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`" if scalar else "-"


def _meaning(schema: Schema, instead: str | None) -> str:
    rules = [] if "properties" in schema else schema.get("x-kubernetes-validations", ())
    words = [rule["message"] for rule in rules if not rule["message"].startswith("write a whole number")]
    text = str(schema["description"]).partition(" Default: ")[0]
    if words:
        text += f" *{'; '.join(dict.fromkeys(words))}.*"
    if instead:
        text += f" **For now only**: {instead}."
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(build_page(PAGE.read_text()))


if __name__ == "__main__":
    main()
