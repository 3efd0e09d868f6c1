"""The generated CRD: what is committed is what the models say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from harness.reference import PAGE, build_page
from tonnage.api.crd import build_crd, structural

ROOT = Path(__file__).parents[3]
COMMITTED = [
    ROOT / "crds" / "tonnage.dev_llmdeployments.yaml",
    ROOT / "charts" / "tonnage" / "crds-generated" / "llmdeployments.yaml",
]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_the_committed_crd_is_current(path: Path) -> None:
    assert yaml.safe_load(path.read_text()) == build_crd(), "run `make crd`"


def test_the_reference_is_current_and_has_every_field() -> None:
    page = PAGE.read_text()
    assert build_page(page) == page, "run `make crd`"
    names = {name for _, node in parts("spec", "status") for name in node.get("properties", {})}
    assert [name for name in sorted(names) if f"| `{name}` |" not in page] == []


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a schema: fields, items of lists, values of maps."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}[*]")


def api_schema() -> dict[str, Any]:
    version = build_crd()["spec"]["versions"][0]
    root: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return root


def parts(*names: str) -> list[tuple[str, dict[str, Any]]]:
    properties = api_schema()["properties"]
    return [found for name in names for found in nodes(properties[name], name)]


def test_every_part_is_described_in_a_sentence() -> None:
    unfinished = [
        path for path, node in parts("spec", "status") if not node.get("description", "").endswith(".")
    ]
    assert unfinished == []
    assert len(parts("spec")) > 200


def test_no_field_is_described_by_its_name_alone() -> None:
    empty = [
        path
        for path, node in parts("spec", "status")
        if len(node["description"]) < 6
        or node["description"].rstrip(".").lower() == path.rsplit(".", 1)[-1].lower()
    ]
    assert empty == []


def test_everything_that_a_user_writes_is_bounded() -> None:
    """CEL's cost is estimated from these; without them the API server refuses the CRD."""
    bounds = {"array": "maxItems", "integer": "maximum"}
    unbounded = [
        path
        for path, node in parts("spec")
        if (node.get("type") in bounds and bounds[node["type"]] not in node)
        or (node.get("type") == "string" and not {"maxLength", "enum"} & set(node))
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


def test_every_list_and_map_says_how_it_is_merged() -> None:
    silent = [
        path
        for path, node in parts("spec", "status")
        if node.get("type") == "array" and "x-kubernetes-list-type" not in node
    ]
    assert silent == []


def test_every_rule_says_what_to_write() -> None:
    rules = [
        (path, rule)
        for path, node in [("", api_schema()), *parts("spec", "status")]
        for rule in node.get("x-kubernetes-validations", ())
    ]
    assert len(rules) > 60
    for path, rule in rules:
        assert "\n" not in rule["message"], path
        assert len(rule["message"]) > 20, path


def test_nothing_is_opaque() -> None:
    assert [p for p, n in parts("spec", "status") if "x-kubernetes-preserve-unknown-fields" in n] == []


def test_defaults_are_told_where_kubectl_explain_shows_them() -> None:
    untold = [
        path
        for path, node in parts("spec")
        if node.get("default") not in (None, "")
        and not isinstance(node["default"], dict)
        and "Default: " not in node["description"]
    ]
    assert untold == []


def test_nothing_but_structural_keys_is_left() -> None:
    foreign = [
        (path, key)
        for path, node in nodes(api_schema(), "object")
        for key in ("$ref", "anyOf", "oneOf", "title", "const", "$defs", "propertyNames")
        if key in node
    ]
    assert foreign == []


class Either(BaseModel):
    value: int | str


def test_a_union_of_types_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Either\.value"):
        structural(Either)
